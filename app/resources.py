"""Resources that a process opens once, and that every service is built from."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeAlias

import structlog

from app.capability_repository import record_capabilities
from app.clock import LARGEST_OFFSET_SECONDS, Clock, Reading, SystemClock
from app.config import Settings
from app.conversations.call_habits import CallHabits
from app.db.database import ALL_ROOTS, Database
from app.db.notifier import CHANNELS, Notifier, read_clock
from app.db.requirements import require_current, require_ordinary_role
from app.embedded import EmbeddedPostgres
from app.embedded.disk import Disk
from app.errors import OperatorError, SettingError
from app.indexing.formats import find_dimensions, register
from app.indexing.passages import PassageIndex
from app.indexing.terms import Vocabulary
from app.provider_settings import embedding_providers, read_providers
from app.providers.capabilities import Capabilities
from app.providers.embedder import (
    BatchingEmbedder,
    Embedder,
    TextForm,
    TextForms,
    create_embedder,
)
from app.providers.errors import ProviderError
from app.providers.llm import LLMPool, create_llm
from app.providers.provider import Providers
from app.usage_counter import UsageCounter

_embedding_logger = structlog.get_logger("memoryd.embedding")
_logger = structlog.get_logger("memoryd.database")

ChooseIndex: TypeAlias = Callable[[Database, Embedder | None, Vocabulary], Awaitable[PassageIndex]]


class NoDatabaseError(OperatorError):
    """A process was started without a database; `memoryd serve` starts the embedded one."""

    def __init__(self) -> None:
        super().__init__(
            "No database is configured. Start with `memoryd serve`, which brings its own, "
            "or set MEMORYD_DATABASE_URL."
        )


@dataclass(frozen=True, slots=True)
class Resources:
    """The open parts of one process."""

    settings: Settings
    database: Database
    index: PassageIndex
    clock: Clock
    usage: UsageCounter
    llms: LLMPool
    capabilities: Capabilities
    notifier: Notifier
    habits: CallHabits = field(default_factory=CallHabits)


class DatabasePulse:
    """Keeps the clock correct, and suspends a database that does not answer."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._warned = False

    async def measure(self) -> None:
        """Read the database's clock."""
        async with self._database.connection(ALL_ROOTS) as connection:
            self.answered(await read_clock(connection))

    def answered(self, reading: Reading) -> None:
        """Follow the database's clock, and resume the database if it was suspended."""
        if self._database.resume():
            _logger.warning("the database answers again")
        self._clock.correct(reading)
        offset = self._clock.offset_seconds
        is_large = abs(offset) > LARGEST_OFFSET_SECONDS
        if is_large and not self._warned:
            _logger.warning(
                "this machine's clock differs from the database's; the database's is used",
                seconds_ahead=round(offset, 3),
            )
        self._warned = is_large

    async def silent(self) -> None:
        """Fail all work on the database until it answers again."""
        _logger.error("the database does not answer; requests fail until it does")
        await self._database.suspend()


@asynccontextmanager
async def open_resources(
    settings: Settings,
    *,
    embedder: Embedder | None = None,
    clock: Clock | None = None,
    choose_index: ChooseIndex = register,
    warm: bool = True,
) -> AsyncIterator[Resources]:
    """Open everything a process needs, and close it again.

    `embedder` and `clock` replace the configured ones in tests. Without `warm`, a local model is
    loaded when it is first used. Raises DatabaseUnreachableError, SchemaMismatchError,
    DatabaseRoleError, SettingError and EmbeddingModelMismatchError.
    """
    url = settings.database_url
    if url is None:
        raise NoDatabaseError
    await require_current(url)
    if not settings.allow_superuser:
        await require_ordinary_role(url)
    clock = clock or SystemClock()
    capabilities = Capabilities(clock)
    providers = read_providers(settings)
    chosen = embedder or _configured_embedder(settings, providers, capabilities)
    vocabulary = _configured_vocabulary(settings)
    llms = _configured_llms(settings, providers, capabilities)
    async with AsyncExitStack() as stack:
        disk = Disk(settings.data_dir if EmbeddedPostgres.owns(url, settings.data_dir) else None)
        database = await Database.open(url, pool_size=settings.database_pool_size, disk=disk)
        stack.push_async_callback(database.close)
        pulse = DatabasePulse(database, clock)
        await pulse.measure()
        await stack.enter_async_context(record_capabilities(capabilities, database))
        batching = BatchingEmbedder(chosen) if chosen else None
        if batching:
            stack.push_async_callback(batching.aclose)
            await _warm_up(batching, database, load=warm)
        index = replace(
            await choose_index(database, batching, vocabulary),
            default_paths=settings.index_fields,
        )
        stack.push_async_callback(llms.aclose)
        notifier = await stack.enter_async_context(Notifier.open(url, CHANNELS, pulse))
        usage, habits = UsageCounter(clock), CallHabits(capabilities, providers)
        yield Resources(
            settings, database, index, clock, usage, llms, capabilities, notifier, habits
        )


async def _warm_up(embedder: Embedder, database: Database, *, load: bool) -> None:
    """Warm up; a server that is away is not needed if the length of its vectors is stored."""
    try:
        await embedder.warm_up(load=load)
    except ProviderError as error:
        dimensions = await find_dimensions(database, embedder)
        if not (error.retryable and dimensions):
            raise
        embedder.assume_dimensions(dimensions)
        _embedding_logger.warning("put off", reason=str(error))


def _configured_embedder(
    settings: Settings, providers: Providers, capabilities: Capabilities
) -> Embedder | None:
    try:
        return create_embedder(
            settings.embedding,
            embedding_providers(settings, providers),
            cache_dir=settings.data_dir / "models",
            dimensions=settings.embedding_dimensions,
            forms=TextForms(
                TextForm(
                    settings.embedding_query_prefix or "", settings.embedding_query_input_type
                ),
                TextForm(
                    settings.embedding_passage_prefix or "", settings.embedding_passage_input_type
                ),
            ),
            capabilities=capabilities,
        )
    except ValueError as error:
        raise SettingError(f"MEMORYD_EMBEDDING: {error}.") from error


def check_llm(settings: Settings) -> None:
    """Raise SettingError if a model is configured that cannot be used."""
    providers = read_providers(settings)
    if settings.llm:
        try:
            create_llm(settings.llm, providers)
        except ValueError as error:
            raise SettingError(f"MEMORYD_LLM: {error}.") from error


def _configured_llms(
    settings: Settings, providers: Providers, capabilities: Capabilities
) -> LLMPool:
    create = partial(
        create_llm,
        providers=providers,
        timeout=settings.llm_timeout_seconds,
        capabilities=capabilities,
    )
    return LLMPool(
        settings.llm,
        create,
        allowed=settings.allowed_models or (),
        concurrency=settings.llm_concurrency,
    )


def _configured_vocabulary(settings: Settings) -> Vocabulary:
    try:
        return Vocabulary(settings.language)
    except ValueError as error:
        raise SettingError(f"MEMORYD_LANGUAGE: {error}.") from error
