"""The interface of language models: requests and completions independent of any provider."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from app.json_values import JsonObject
from app.providers.errors import UnavailableError


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call; `parameters` is the JSON Schema of its arguments."""

    name: str
    description: str
    parameters: JsonObject


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool by the model; `arguments` is None if `raw` is not a JSON object."""

    id: str
    name: str
    arguments: JsonObject | None
    raw: str


@dataclass(frozen=True, slots=True)
class ToolResult:
    """The result of the call with the id `call_id`."""

    call_id: str
    content: str
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class Verbatim:
    """A turn exactly as the model `llm` wrote it, including its signed thinking."""

    llm: str
    content: Any


@dataclass(frozen=True, slots=True)
class Message:
    """One turn: `calls` are the assistant's, `results` the user's results of the calls before.

    Models that think need their turns with calls back unchanged: append
    `Completion.message`, not a message of its parts.
    """

    role: Literal["user", "assistant"]
    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    results: tuple[ToolResult, ...] = ()
    verbatim: Verbatim | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Request:
    """A request; `tool_choice` is "auto", "any", "none" or the name of a tool.

    Some models cannot be forced to call a tool: they are asked to in words, so an answer
    may have no calls. The temperature is left out for models that do not support it.
    `max_tokens` limits thinking and answer together; OpenAI accepts no less than 16.
    """

    system: str
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"
    max_tokens: int = 8_192
    temperature: float | None = None

    @property
    def is_forced(self) -> bool:
        """True if the model may not answer without a call."""
        return bool(self.tools) and self.tool_choice not in {"auto", "none"}

    def with_choice_in_words(self) -> "Request":
        """Return the request with its tool choice as a sentence at the end of the system text."""
        sentence = (
            "Answer by calling at least one of the tools."
            if self.tool_choice == "any"
            else f"Answer by calling the tool {self.tool_choice}."
        )
        return replace(self, system=f"{self.system}\n\n{sentence}".strip(), tool_choice="auto")


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens and cost of a completion; `input_tokens` include those read from the provider's cache.

    `cost_usd` is None if the price of the model is unknown.
    """

    input_tokens: int
    output_tokens: int
    cached_tokens: int
    cost_usd: float | None


@dataclass(frozen=True, slots=True)
class Completion:
    """The model's answer; `model` is the name in the reply."""

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
    """Answers conversations, with text or with calls of the request's tools."""

    @property
    def name(self) -> str:
        """The setting that selects this model, such as `anthropic:MODEL`."""

    async def complete(self, request: Request) -> Completion:
        """Return the model's next turn; raises ProviderError."""

    async def aclose(self) -> None:
        """Close the connections."""
