"""What a process opens once and every service is built from."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import TypeAlias

from app.clock import Clock, SystemClock
from app.config import Settings
from app.db import Database, Row
from app.migrations import require_current
from app.passage_index import PassageIndex, register
from app.providers.embeddings.base import Embedder
from app.providers.embeddings.batching import BatchingEmbedder
from app.providers.embeddings.registry import create_embedder
from app.terms import Vocabulary

MANY_WAITING = 1_000
"""Items whose uses wait to be written, from which on writing them is urgent."""

MOST_WAITING = 20_000
"""Items whose uses may wait, some 4 MB; beyond it, uses of further items are dropped."""


ChooseIndex: TypeAlias = Callable[[Database, Embedder | None, Vocabulary], Awaitable[PassageIndex]]


class NoDatabaseError(Exception):
    """A process was started without a database; `memoryd serve` starts the embedded one."""

    def __init__(self) -> None:
        super().__init__(
            "No database is configured. Start with `memoryd serve`, which brings its own, "
            "or set MEMORYD_DATABASE_URL."
        )


class SettingError(Exception):
    """A setting has a value that cannot work; the message names it and says what it takes."""


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

    def note(self, rows: Iterable[Row]) -> None:
        """Count a use, at this moment, of every item among some rows."""
        now, waiting = self._clock.now(), self._waiting
        for row in rows:
            item_id = row["id"]
            if item_id in waiting:
                uses = waiting[item_id]
                uses.count += 1
                uses.last = now
            elif len(waiting) < MOST_WAITING:
                waiting[item_id] = Uses(row["namespace"], 1, now)
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


@dataclass(frozen=True, slots=True)
class Resources:
    """The open parts of one process."""

    settings: Settings
    database: Database
    index: PassageIndex
    clock: Clock
    usage: Usage


@asynccontextmanager
async def open_resources(
    settings: Settings,
    *,
    embedder: Embedder | None = None,
    clock: Clock | None = None,
    choose_index: ChooseIndex = register,
) -> AsyncIterator[Resources]:
    """Open everything a process needs, and close it again.

    `embedder` and `clock` replace the configured ones in tests. Raises DatabaseUnreachableError,
    SchemaMismatchError, SettingError and EmbeddingModelMismatchError.
    """
    url = settings.database_url
    if url is None:
        raise NoDatabaseError
    await require_current(url)
    clock = clock or SystemClock()
    chosen = embedder or _configured_embedder(settings)
    vocabulary = _configured_vocabulary(settings)
    database = await Database.open(url, pool_size=settings.database_pool_size)
    batching = BatchingEmbedder(chosen) if chosen else None
    try:
        if batching:
            await batching.warm_up()
        index = await choose_index(database, batching, vocabulary)
        yield Resources(settings, database, index, clock, Usage(clock))
    finally:
        if batching:
            await batching.aclose()
        await database.close()


def _configured_embedder(settings: Settings) -> Embedder | None:
    key = settings.openai_api_key
    try:
        return create_embedder(
            settings.embedding,
            cache_dir=settings.data_dir / "models",
            openai_api_key=key.get_secret_value() if key else None,
            openai_base_url=settings.openai_base_url,
            dimensions=settings.embedding_dimensions,
        )
    except ValueError as error:
        raise SettingError(f"MEMORYD_EMBEDDING: {error}.") from error


def _configured_vocabulary(settings: Settings) -> Vocabulary:
    try:
        return Vocabulary(settings.language)
    except ValueError as error:
        raise SettingError(f"MEMORYD_LANGUAGE: {error}.") from error
