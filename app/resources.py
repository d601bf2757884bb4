"""What a process opens once and every service is built from."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias

from app.clock import Clock, SystemClock
from app.config import Settings
from app.db import Database
from app.migrations import require_current
from app.passage_index import PassageIndex, register
from app.providers.embeddings.base import Embedder
from app.providers.embeddings.batching import BatchingEmbedder
from app.providers.embeddings.registry import create_embedder
from app.terms import Vocabulary
from app.usage import Usage

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
