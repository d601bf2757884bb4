"""Turns at asking models: no root may make all the calls that a process makes at a time."""

import asyncio
from weakref import WeakValueDictionary


class RootTurns:
    """Lets the jobs of each root make some three quarters of all calls at a time."""

    def __init__(self, concurrency: int) -> None:
        self._share = max(1, concurrency * 3 // 4)
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    def of(self, root: str) -> asyncio.Semaphore:
        """Return what each call of a root's jobs holds."""
        turns = self._turns.get(root)
        if turns is None:
            turns = self._turns[root] = asyncio.Semaphore(self._share)
        return turns
