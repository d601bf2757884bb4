"""Language models: the interface, creation by name, and the pool that a process shares."""

import asyncio
import importlib
from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from cachetools import LRUCache

from app.errors import AppError
from app.json_values import JsonObject
from app.providers.capabilities import Capabilities
from app.providers.errors import UnavailableError
from app.providers.provider import Providers, find_provider

_ADAPTERS = {
    "anthropic": ("anthropic", "AnthropicLLM"),
    "chat": ("openai_chat", "ChatLLM"),
    "responses": ("openai", "ResponsesLLM"),
}
"""The module and the class for each API."""

_KEPT = 32
"""Maximum models kept open, among those that clients name and the operator allows."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call; `parameters` is the JSON Schema of its arguments."""

    name: str
    description: str
    parameters: JsonObject

    def closed(self) -> "Tool":
        """Return the tool with arguments whose objects have only the members that are listed."""
        return replace(self, parameters=_close_objects(self.parameters))


def _close_objects(schema: Any) -> Any:
    """Return a schema whose objects with listed members allow no others."""
    if not isinstance(schema, dict):
        return schema
    closed = dict(schema)
    for name in schema.keys() & {"properties", "$defs"}:
        closed[name] = {key: _close_objects(part) for key, part in schema[name].items()}
    for name in schema.keys() & {"anyOf", "oneOf", "prefixItems"}:
        closed[name] = [_close_objects(part) for part in schema[name]]
    if "items" in schema:
        closed["items"] = _close_objects(schema["items"])
    is_open = schema.get("additionalProperties", True) in (True, {})
    return (
        {**closed, "additionalProperties": False} if is_open and "properties" in schema else closed
    )


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
    After a RequestTooLongError, the caller of a divisible request sends shorter ones.
    """

    system: str
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"
    max_tokens: int = 8_192
    temperature: float | None = None
    divisible: bool = False

    @property
    def characters(self) -> int:
        """Length of its messages' texts."""
        return sum(len(message.text) for message in self.messages)

    @property
    def is_forced(self) -> bool:
        """True if the model may not answer without a call."""
        return bool(self.tools) and self.tool_choice not in {"auto", "none"}

    @property
    def has_open_objects(self) -> bool:
        """True if objects in the arguments of some tool may have members that are not listed."""
        return any(tool.closed() != tool for tool in self.tools)

    def with_closed_objects(self) -> "Request":
        """Return the request with tools whose objects have only the members that are listed."""
        return replace(self, tools=tuple(tool.closed() for tool in self.tools))

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
    """The model's answer; `model` is the name in the reply.

    `digest` is the key under which a job keeps it, if one does.
    """

    text: str
    calls: tuple[ToolCall, ...]
    finish_reason: Literal["end", "tools", "length", "refusal", "unusable"]
    usage: TokenUsage
    model: str
    verbatim: Verbatim | None = field(default=None, compare=False, repr=False)
    digest: str | None = field(default=None, compare=False, repr=False)

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


class LLMNotConfiguredError(AppError):
    """The request needs a language model, and none is configured, or its key is missing."""

    status = 422
    code = "llm_not_configured"
    title = "No language model"


class ModelNotAllowedError(LLMNotConfiguredError):
    """The operator has not allowed the named model."""

    code = "model_not_allowed"
    title = "Model not allowed"

    def __init__(self, spec: str, allowed: Collection[str]) -> None:
        names = ", ".join(f'"{name}"' for name in sorted(allowed)) or "none"
        super().__init__(
            f'The model "{spec}" may not be used here. Allowed: {names}. The operator chooses '
            "them with MEMORYD_LLM and MEMORYD_ALLOWED_MODELS."
        )


class LLMPool:
    """Keeps the models used most recently, and limits the concurrent calls of each provider.

    Models are allowed by name, or all with a beginning such as `openai:*`; the default always is.
    """

    def __init__(
        self,
        default: str | None,
        create: Callable[[str], LLM],
        *,
        allowed: Collection[str] = (),
        concurrency: int = 8,
    ) -> None:
        self._default = default
        self._allowed = frozenset(allowed) | ({default} if default else set())
        self._beginnings = tuple(name[:-1] for name in allowed if name.endswith("*"))
        self._create = create
        # An evicted model is not closed: its callers may still use it. Its SDK closes it with the
        # last of them.
        self._models: LRUCache[str, LLM] = LRUCache(_KEPT)
        self._limits: defaultdict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(concurrency)
        )

    def get(self, spec: str | None = None) -> LLM:
        """Return the model called `spec`, or the default; raises LLMNotConfiguredError."""
        self.check(spec)
        spec = spec or self._default
        if spec is None:
            raise LLMNotConfiguredError(
                "This needs a language model, and none is configured; set MEMORYD_LLM to "
                "anthropic:MODEL with ANTHROPIC_API_KEY, or openai:MODEL with OPENAI_API_KEY."
            )
        if spec not in self._models:
            try:
                llm = self._create(spec)
            except ValueError as error:
                raise LLMNotConfiguredError(f"This needs a language model, but {error}.") from error
            self._models[spec] = _Limited(llm, self._limits[spec.partition(":")[0]])
        return self._models[spec]

    def require(self, spec: str | None) -> str | None:
        """Return `spec` if the model can be asked; raises LLMNotConfiguredError.

        None stays None in a job's plan: the job uses the default model at the time it runs, so
        that a wrong default can be corrected.
        """
        self.get(spec)
        return spec

    def check(self, *specs: str | None) -> None:
        """Raise ModelNotAllowedError unless every named model is allowed."""
        for spec in specs:
            if spec is not None and not self._allows(spec):
                raise ModelNotAllowedError(spec, self._allowed)

    def _allows(self, spec: str) -> bool:
        return spec in self._allowed or spec.startswith(self._beginnings)

    async def aclose(self) -> None:
        """Close every model; later calls fail with UnavailableError."""
        for llm in self._models.values():
            await llm.aclose()


class _Limited:
    """Waits for a free slot before each call."""

    def __init__(self, inner: LLM, limit: asyncio.Semaphore) -> None:
        self.name = inner.name
        self._inner = inner
        self._limit = limit

    async def complete(self, request: Request) -> Completion:
        async with self._limit:
            return await self._inner.complete(request)

    async def aclose(self) -> None:
        await self._inner.aclose()


class DeferredLLM:
    """Creates the model at the first call, in a thread: importing its SDK takes about a second."""

    def __init__(self, name: str, create: Callable[[], LLM]) -> None:
        self.name = name
        self._create = create
        self._llm: LLM | None = None
        self._lock = asyncio.Lock()
        self._is_closed = False

    async def complete(self, request: Request) -> Completion:
        """Return the model's next turn."""
        async with self._lock:
            if self._is_closed:
                raise UnavailableError(f"{self.name} is closed; start the server again")
            if self._llm is None:
                self._llm = await asyncio.to_thread(self._create)
        return await self._llm.complete(request)

    async def aclose(self) -> None:
        """Close the connections."""
        async with self._lock:
            self._is_closed = True
        if self._llm is not None:
            await self._llm.aclose()


def create_llm(
    spec: str,
    providers: Providers,
    *,
    timeout: float = 120,
    capabilities: Capabilities | None = None,
) -> LLM:
    """Return the model that `spec` names; raises ValueError for one that names none or lacks a key.

    The SDK, and with it the module of the API, is imported at the first call.
    """
    found = find_provider(spec, providers)
    if found is None:
        known = " or ".join(f"{name}:MODEL" for name in sorted(providers))
        raise ValueError(f"no language model is called {spec!r}; write {known}")
    provider, model = found
    module, name = _ADAPTERS["anthropic" if provider.kind == "anthropic" else provider.api]

    def create() -> LLM:
        adapter: Any = getattr(importlib.import_module(f"app.providers.{module}"), name)
        llm: LLM = adapter(model, provider, timeout=timeout, capabilities=capabilities)
        return llm

    return DeferredLLM(spec, create)
