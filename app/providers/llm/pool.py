"""The language models of one process: created by name, shared, and limited in concurrency."""

import asyncio
import importlib
from collections import defaultdict
from collections.abc import Callable, Collection
from typing import Any

from cachetools import LRUCache

from app.errors import AppError
from app.providers.errors import UnavailableError
from app.providers.llm.base import LLM, Completion, Request

_KEPT = 32
"""Maximum models kept open, among those that clients name and the operator allows."""


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

    Models are allowed by name; the default always is.
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
            if spec is not None and spec not in self._allowed:
                raise ModelNotAllowedError(spec, self._allowed)

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
    *,
    anthropic_api_key: str | None = None,
    anthropic_base_url: str | None = None,
    openai_api_key: str | None = None,
    openai_base_url: str | None = None,
    timeout: float = 120,
) -> LLM:
    """Return the model that `spec` names; raises ValueError for one that names none or lacks a key.

    OpenAI itself is called through its Responses API, other servers through Chat Completions.
    """
    openai = ("openai_chat", "ChatLLM") if openai_base_url else ("openai_responses", "ResponsesLLM")
    providers = {
        "anthropic": (("anthropic", "AnthropicLLM"), anthropic_api_key, anthropic_base_url),
        "openai": (openai, openai_api_key, openai_base_url),
    }
    provider, _, model = spec.partition(":")
    if provider not in providers or not model:
        raise ValueError(
            f"no language model is called {spec!r}; write anthropic:MODEL or openai:MODEL"
        )
    (module, name), api_key, base_url = providers[provider]
    if not (api_key or base_url):
        raise ValueError(
            f"{spec} needs {provider.upper()}_API_KEY, "
            f"or {provider.upper()}_BASE_URL of a server that takes no key"
        )

    def create() -> LLM:
        found: Any = importlib.import_module(f"app.providers.llm.{module}")
        llm: LLM = getattr(found, name)(model, api_key=api_key, base_url=base_url, timeout=timeout)
        return llm

    return DeferredLLM(spec, create)
