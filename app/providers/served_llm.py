"""The common part of all language models: requests are repeated without the features refused."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from app.providers.capabilities import Capabilities, ServedModel
from app.providers.errors import ProviderError, RequestTooLongError
from app.providers.features import OPEN_OBJECTS, Concessions, Feature
from app.providers.llm import Completion, Request
from app.providers.provider import Provider

CONTEXT_CHARACTERS = "context_characters"
"""The characters of messages that a model reads, among its capabilities."""

_LEAST_CONTEXT = 2_000


class ServedLLM(ABC):
    """A model and the provider that serves it."""

    def __init__(self, model: str, provider: Provider, capabilities: Capabilities | None) -> None:
        self.name = f"{provider.name}:{model}"
        self._model = model
        self._api_key = provider.api_key
        self._served = ServedModel(provider.address, model)
        self._capabilities = capabilities or Capabilities()
        self._refusal: tuple[int, str] | None = None  # characters refused, and why

    async def complete(self, request: Request) -> Completion:
        """Return the model's next turn; features that the server refuses are left out.

        A divisible request that is longer than those that fit is refused unsent.
        """
        if not request.divisible:
            return await self._complete(request)
        self._check_length(request.characters)
        try:
            completion = await self._complete(request)
        except RequestTooLongError as error:
            if self._refusal is None or request.characters < self._refusal[0]:
                self._refusal = request.characters, str(error)
            error.excess = request.characters - request.characters // 2
            raise
        self._learn_length(request.characters)
        return completion

    async def _complete(self, request: Request) -> Completion:
        concessions = Concessions(self._capabilities, self._served)
        while True:
            if not concessions.allow(OPEN_OBJECTS):
                request = request.with_closed_objects()
            arguments = self._arguments(request, concessions)
            try:
                completion = await self._answer(arguments)
            except ProviderError as error:
                own = [OPEN_OBJECTS] if request.has_open_objects else []
                sent = [*own, *self._features(request, arguments)]
                asked = concessions.limit_output(request.max_tokens)
                if not concessions.concede(error, sent, asked):
                    raise
            else:
                concessions.settle()
                return completion

    def _check_length(self, characters: int) -> None:
        limit = self._capabilities.limit(self._served, CONTEXT_CHARACTERS)
        if limit is not None and characters > limit:
            raise RequestTooLongError(
                f"{self.name} was found to read {limit:,} characters; there are {characters:,}",
                excess=characters - limit,
            )

    def _learn_length(self, passed: int) -> None:
        """Remember the length that fits: one that has passed, or half of the refused one."""
        if self._refusal is None or passed >= self._refusal[0]:
            return
        refused, words = self._refusal
        self._refusal = None
        limit = max(passed, refused // 2, _LEAST_CONTEXT)
        if limit < refused:
            self._capabilities.learn(self._served, CONTEXT_CHARACTERS, limit=limit, reason=words)

    @abstractmethod
    def _arguments(self, request: Request, concessions: Concessions) -> dict[str, Any]:
        """Return the arguments of the SDK's method."""

    @abstractmethod
    def _features(self, request: Request, arguments: dict[str, Any]) -> Sequence[Feature]:
        """Return the features that arguments have, the most likely to be refused first."""

    @abstractmethod
    async def _answer(self, arguments: dict[str, Any]) -> Completion:
        """Send a request and read the reply; raises ProviderError."""
