"""The common part of all language models: requests are repeated without the features refused."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from app.providers.capabilities import Capabilities, ServedModel
from app.providers.errors import ProviderError
from app.providers.features import Concessions, Feature
from app.providers.llm import Completion, Request


class ServedLLM(ABC):
    """A model at the address that serves it."""

    name: str

    def __init__(self, address: str, model: str, capabilities: Capabilities | None) -> None:
        self._model = model
        self._served = ServedModel(address, model)
        self._capabilities = capabilities or Capabilities()

    async def complete(self, request: Request) -> Completion:
        """Return the model's next turn; features that the server refuses are left out."""
        concessions = Concessions(self._capabilities, self._served)
        while True:
            arguments = self._arguments(request, concessions)
            try:
                completion = await self._answer(arguments)
            except ProviderError as error:
                sent = self._features(request, arguments)
                asked = concessions.limit_output(request.max_tokens)
                if not concessions.concede(error, sent, asked):
                    raise
            else:
                concessions.settle()
                return completion

    @abstractmethod
    def _arguments(self, request: Request, concessions: Concessions) -> dict[str, Any]:
        """Return the arguments of the SDK's method."""

    @abstractmethod
    def _features(self, request: Request, arguments: dict[str, Any]) -> Sequence[Feature]:
        """Return the features that arguments have, the most likely to be refused first."""

    @abstractmethod
    async def _answer(self, arguments: dict[str, Any]) -> Completion:
        """Send a request and read the reply; raises ProviderError."""
