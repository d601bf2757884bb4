"""What a process opens once and every service is built from."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from app.clock import Clock, SystemClock
from app.config import Settings
from app.db import Database
from app.migrations import require_current
from app.notifier import CHANNELS, Notifier
from app.passage_index import PassageIndex, register
from app.providers.embeddings.base import Embedder
from app.providers.embeddings.batching import BatchingEmbedder
from app.providers.embeddings.registry import create_embedder
from app.providers.llm.pool import LLMs
from app.providers.llm.registry import create_llm
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
    llms: LLMs
    notifier: Notifier


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
    llms = _configured_llms(settings)
    async with AsyncExitStack() as stack:
        database = await Database.open(url, pool_size=settings.database_pool_size)
        stack.push_async_callback(database.close)
        batching = BatchingEmbedder(chosen) if chosen else None
        if batching:
            stack.push_async_callback(batching.aclose)
            await batching.warm_up()
        index = await choose_index(database, batching, vocabulary)
        stack.push_async_callback(llms.aclose)
        notifier = await stack.enter_async_context(Notifier.open(url, CHANNELS))
        yield Resources(settings, database, index, clock, Usage(clock), llms, notifier)


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


def _configured_llms(settings: Settings) -> LLMs:
    anthropic, openai = settings.anthropic_api_key, settings.openai_api_key
    create = partial(
        create_llm,
        anthropic_api_key=anthropic.get_secret_value() if anthropic else None,
        anthropic_base_url=settings.anthropic_base_url,
        openai_api_key=openai.get_secret_value() if openai else None,
        openai_base_url=settings.openai_base_url,
        timeout=settings.llm_timeout_seconds,
    )
    return LLMs(settings.llm, create, concurrency=settings.llm_concurrency)


def _configured_vocabulary(settings: Settings) -> Vocabulary:
    try:
        return Vocabulary(settings.language)
    except ValueError as error:
        raise SettingError(f"MEMORYD_LANGUAGE: {error}.") from error
