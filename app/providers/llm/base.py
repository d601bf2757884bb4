"""What every language model can do, in words that are no provider's."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from app.providers.errors import UnavailableError


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call; `parameters` is the JSON Schema of its arguments."""

    name: str
    description: str
    parameters: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The model's wish to call a tool; `arguments` is None when `raw` is not a JSON object."""

    id: str
    name: str
    arguments: dict[str, Any] | None
    raw: str


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What came of the call with the id `call_id`."""

    call_id: str
    content: str
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class Verbatim:
    """A turn as the model called `llm` wrote it, its signed thinking included."""

    llm: str
    content: Any


@dataclass(frozen=True, slots=True)
class Message:
    """One turn: `calls` are the assistant's, `results` the user's answers to the calls before.

    Models that think want a turn that called tools back word for word: append
    `Completion.message`, not a message of its parts.
    """

    role: Literal["user", "assistant"]
    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    results: tuple[ToolResult, ...] = ()
    verbatim: Verbatim | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Request:
    """What the model is asked; `tool_choice` is "auto", "any", "none" or the name of a tool.

    Some models cannot be forced to call a tool: they are asked to in words, so an answer
    without calls must be reckoned with. Models that take no temperature go without.
    `max_tokens` limits thinking and answer together; OpenAI takes no less than 16.
    """

    system: str
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"
    max_tokens: int = 8_192
    temperature: float | None = None

    @property
    def is_forced(self) -> bool:
        """Whether the model may not answer without a call."""
        return bool(self.tools) and self.tool_choice not in {"auto", "none"}

    def with_choice_in_words(self) -> "Request":
        """Return the request with its tool choice as a wish at the end of the system text."""
        wish = (
            "Answer by calling at least one of the tools."
            if self.tool_choice == "any"
            else f"Answer by calling the tool {self.tool_choice}."
        )
        return replace(self, system=f"{self.system}\n\n{wish}".strip(), tool_choice="auto")


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """What a completion took; `input_tokens` include those read from the provider's cache.

    `cost_usd` is None when the price of the model is not known.
    """

    input_tokens: int
    output_tokens: int
    cached_tokens: int
    cost_usd: float | None


@dataclass(frozen=True, slots=True)
class Completion:
    """The model's answer; `model` is the name it gave itself."""

    text: str
    calls: tuple[ToolCall, ...]
    finish_reason: Literal["end", "tools", "length", "refusal", "unusable"]
    usage: TokenUsage
    model: str
    verbatim: Verbatim | None = field(default=None, compare=False, repr=False)

    @property
    def message(self) -> Message:
        """The turn to append to the conversation before the results of its calls."""
        return Message("assistant", self.text, self.calls, verbatim=self.verbatim)


class UnusableReplyError(UnavailableError):
    """The provider sent, and charged for, a reply that is not a completion.

    `completion` has the usage of the call, as far as the reply states it.
    """

    def __init__(self, message: str, completion: Completion) -> None:
        super().__init__(message)
        self.completion = completion


class LLM(Protocol):
    """Answers conversations, with text or with calls of the tools it was offered."""

    @property
    def name(self) -> str:
        """The setting that selects this model, such as `anthropic:MODEL`."""

    async def complete(self, request: Request) -> Completion:
        """Return the model's next turn; raises ProviderError."""

    async def aclose(self) -> None:
        """Close the connections."""
