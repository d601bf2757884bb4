"""A cache of API keys, so that few requests need the database to check theirs."""

import asyncio
import time
from collections.abc import Mapping

from app.auth import repository
from app.auth.keys import ApiKey
from app.db.database import ALL_ROOTS, Database

CACHE_SECONDS = 5.0
"""How long a process trusts what it read about a key: the delay of a revocation."""

_MOST_ENTRIES = 10_000


class KeyCache:
    """Finds keys by their ids, in memory or in the database.

    One query at a time reads all pending ids, so made-up ids use one connection, not the whole
    pool. They are cached apart from real keys, which they cannot evict.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._found: dict[str, tuple[float, ApiKey]] = {}
        self._missing: dict[str, float] = {}
        self._waiting: dict[str, asyncio.Future[ApiKey | None]] = {}
        self._reader: asyncio.Task[None] | None = None

    async def find(self, key_id: str) -> ApiKey | None:
        """Return the key of that id."""
        now = time.monotonic()
        if (found := self._found.get(key_id)) and now < found[0]:
            return found[1]
        if now < self._missing.get(key_id, 0.0):
            return None
        if key_id not in self._waiting:
            self._waiting[key_id] = asyncio.get_running_loop().create_future()
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read())
        return await asyncio.shield(self._waiting[key_id])

    def remembered(self, key_id: str) -> ApiKey | None:
        """Return a key as it was last read, however long ago."""
        found = self._found.get(key_id)
        return found[1] if found else None

    async def _read(self) -> None:
        while self._waiting:
            asked, self._waiting = self._waiting, {}
            try:
                async with self._database.connection(ALL_ROOTS) as connection:
                    found = await repository.find_many(connection, list(asked))
            except Exception as error:  # noqa: BLE001  # raised to every waiting caller
                for future in asked.values():
                    future.set_exception(error)
            else:
                self._remember(asked, found)

    def _remember(
        self, asked: Mapping[str, asyncio.Future[ApiKey | None]], found: Mapping[str, ApiKey]
    ) -> None:
        until = time.monotonic() + CACHE_SECONDS
        for cache in (self._found, self._missing):
            if len(cache) + len(asked) > _MOST_ENTRIES:
                cache.clear()
        for key_id, future in asked.items():
            key = found.get(key_id)
            if key is None:
                self._missing[key_id] = until
            else:
                self._found[key_id] = (until, key)
            future.set_result(key)
