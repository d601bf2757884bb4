"""A language model whose SDK is imported when it is needed."""

import asyncio
from collections.abc import Callable

from app.providers.errors import UnavailableError
from app.providers.llm.base import LLM, Completion, Request


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
