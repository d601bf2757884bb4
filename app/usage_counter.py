"""How often items are used, counted in memory until `app.store.usage` writes it down."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Protocol

from app.clock import Clock

MANY_WAITING = 1_000
"""Items whose uses wait to be written, from which on writing them is urgent."""

MOST_WAITING = 20_000
"""Items whose uses may wait, some 4 MB; beyond it, uses of further items are dropped."""


class UsedItem(Protocol):
    """An item, as far as it matters for counting."""

    @property
    def id(self) -> int:
        """The item's number."""
        ...

    @property
    def address(self) -> tuple[str, str]:
        """The item's stored namespace and key."""
        ...


@dataclass(slots=True)
class Uses:
    """How often and when an item was used since that was last written down."""

    namespace: str
    count: int
    last: datetime


class Usage:
    """Counts the uses of items in memory; `app.store.usage` writes them down."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: dict[int, Uses] = {}
        self._dropped = 0
        self._many = asyncio.Event()

    def note(self, items: Iterable[UsedItem]) -> None:
        """Count a use of every item, at this moment."""
        now, waiting = self._clock.now(), self._waiting
        for item in items:
            item_id = item.id
            if item_id in waiting:
                uses = waiting[item_id]
                uses.count += 1
                uses.last = now
            elif len(waiting) < MOST_WAITING:
                waiting[item_id] = Uses(item.address[0], 1, now)
            else:
                self._dropped += 1
        if len(waiting) >= MANY_WAITING:
            self._many.set()

    async def many(self) -> None:
        """Wait until writing is urgent."""
        await self._many.wait()

    def take(self, most: int | None = None) -> dict[int, Uses]:
        """Remove and return what waits, by item id; of up to `most` items."""
        taken = {item_id: self._waiting[item_id] for item_id in islice(self._waiting, most)}
        for item_id in taken:
            del self._waiting[item_id]
        if len(self._waiting) < MANY_WAITING:
            self._many.clear()
        return taken

    def put_back(self, taken: Mapping[int, Uses]) -> None:
        """Let what was taken wait again."""
        for item_id, uses in taken.items():
            later = self._waiting.get(item_id)
            if later is None:
                self._waiting[item_id] = uses
            else:
                later.count += uses.count

    def take_dropped(self) -> int:
        """Return how many uses were dropped since this was last asked."""
        dropped, self._dropped = self._dropped, 0
        return dropped
