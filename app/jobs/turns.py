"""Turns at calling models, so that no root makes all of a process's concurrent calls."""

import asyncio
from weakref import WeakValueDictionary


class RootTurns:
    """Lets the jobs of each root make up to three quarters of the concurrent calls."""

    def __init__(self, concurrency: int) -> None:
        self._share = max(1, concurrency * 3 // 4)
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    def of(self, root: str) -> asyncio.Semaphore:
        """Return the semaphore that each call of a root's jobs holds."""
        turns = self._turns.get(root)
        if turns is None:
            turns = self._turns[root] = asyncio.Semaphore(self._share)
        return turns
