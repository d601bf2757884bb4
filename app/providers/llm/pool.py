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
"""Maximum models kept open, of those that clients name and the operator allows."""


class LLMNotConfiguredError(AppError):
    """What was asked for needs a language model, and there is none, or no key for it."""

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
    """Keeps the models used last, and lets `concurrency` calls of each provider run at a time.

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
        self._made: LRUCache[str, LLM] = LRUCache(_KEPT)
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
        if spec not in self._made:
            try:
                llm = self._create(spec)
            except ValueError as error:
                raise LLMNotConfiguredError(f"This needs a language model, but {error}.") from error
            self._made[spec] = _Limited(llm, self._limits[spec.partition(":")[0]])
        return self._made[spec]

    def require(self, spec: str | None) -> str | None:
        """Return `spec` if the model can be asked; raises LLMNotConfiguredError.

        None stays None in what a job keeps: the job asks the model that is the default when it
        runs, so that a default that was wrong can be corrected.
        """
        self.get(spec)
        return spec

    def check(self, *specs: str | None) -> None:
        """Raise ModelNotAllowedError unless every named model is allowed."""
        for spec in specs:
            if spec is not None and spec not in self._allowed:
                raise ModelNotAllowedError(spec, self._allowed)

    async def aclose(self) -> None:
        """Close every model; calls after it fail with UnavailableError."""
        for llm in self._made.values():
            await llm.aclose()


class _Limited:
    """Waits for a turn before each call."""

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
    """Makes the model at the first call, beside the event loop: its SDK takes about a second."""

    def __init__(self, name: str, make: Callable[[], LLM]) -> None:
        self.name = name
        self._make = make
        self._made: LLM | None = None
        self._making = asyncio.Lock()
        self._is_closed = False

    async def complete(self, request: Request) -> Completion:
        """Return the model's next turn."""
        async with self._making:
            if self._is_closed:
                raise UnavailableError(f"{self.name} is closed; start the server again")
            if self._made is None:
                self._made = await asyncio.to_thread(self._make)
        return await self._made.complete(request)

    async def aclose(self) -> None:
        """Close the connections."""
        async with self._making:
            self._is_closed = True
        if self._made is not None:
            await self._made.aclose()


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

    OpenAI itself is asked through its Responses, other servers through Chat Completions.
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

    def make() -> LLM:
        found: Any = importlib.import_module(f"app.providers.llm.{module}")
        llm: LLM = getattr(found, name)(model, api_key=api_key, base_url=base_url, timeout=timeout)
        return llm

    return DeferredLLM(spec, make)
