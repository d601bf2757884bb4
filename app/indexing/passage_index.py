"""How items become passages: one embedder and one vocabulary at a time, kept in the database."""

from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy import Boolean, Column, Identity, Index, Integer, SmallInteger, Table, Text, text
from typing_extensions import override

from app.db.database import ALL_ROOTS, Connection, Database, Row
from app.db.tables import metadata
from app.errors import AppError, OperatorError
from app.indexing.terms import VERSION, Vocabulary
from app.providers.embeddings.base import Embedder, Vector, split_by_characters
from app.providers.errors import ProviderError

passage_indexes = Table(
    "passage_indexes",
    metadata,
    Column("id", SmallInteger, Identity(), primary_key=True),
    Column("embedding", Text, nullable=False, comment="As MEMORYD_EMBEDDING names it, or none."),
    Column("dimensions", Integer, nullable=False),
    Column("vocabulary", Text, nullable=False, comment="Version and language of the terms."),
    Column("active", Boolean, nullable=False),
    Index("passage_indexes_active_index", "active", unique=True, postgresql_where=text("active")),
    comment="The ways in which passages were made; one is active.",
)

_REGISTRATION_LOCK = 7_305_311
"""Advisory lock: several processes may start at once on an empty database."""

_NOT_EMBEDDED_CHARACTERS = 1_000
"""Size of a passage where no model sets a limit; about what the local model reads."""

log = structlog.get_logger()


class EmbeddingModelMismatchError(OperatorError):
    """The database holds passages of another model than the configured one."""

    def __init__(self, stored: str, configured: str) -> None:
        super().__init__(
            f"The database is indexed for {stored}, but this server is configured for "
            f"{configured}; vectors of two models cannot be compared. "
            "Run `memoryd reindex` with this configuration, while servers with the old one go on "
            f"serving, or set MEMORYD_EMBEDDING={stored.partition(' ')[0]}."
        )


class EmbeddingFailedError(AppError):
    """The embedding provider did not answer as it should; nothing was stored."""

    status = 503
    code = "embedding_failed"
    title = "Embedding failed"

    def __init__(self, model: str, error: ProviderError) -> None:
        super().__init__(
            f"{model} could not embed the text: {error}. Nothing was stored. "
            + ("Try again." if error.retryable else "Check the server's embedding settings.")
        )
        if error.retryable:
            self.headers["Retry-After"] = "1"


@dataclass(frozen=True, slots=True)
class PassageIndex:
    """The number passages are stored under, and what makes them."""

    id: int
    embedder: Embedder | None
    vocabulary: Vocabulary

    def split(self, text: str) -> list[str]:
        """Cut a text into passages; may take a second for a megabyte."""
        if self.embedder is None:
            return split_by_characters(text, _NOT_EMBEDDED_CHARACTERS)
        return self.embedder.split(text)

    async def embed(self, texts: Sequence[str], *, urgent: bool = False) -> list[Vector | None]:
        """Return one unit vector a text, None without an embedder; raises EmbeddingFailedError."""
        if self.embedder is None or not texts:
            return [None] * len(texts)
        try:
            return [*await self.embedder.embed(texts, urgent=urgent)]
        except ProviderError as error:
            raise EmbeddingFailedError(self.embedder.name, error) from error


@dataclass(frozen=True, slots=True)
class Making:
    """The way in which passages are made, as the database names it."""

    embedding: str
    dimensions: int
    vocabulary: str

    @override
    def __str__(self) -> str:
        return self.embedding + (f" ({self.dimensions} dimensions)" if self.dimensions else "")


def name_of(vocabulary: Vocabulary) -> str:
    """Return the name of a vocabulary, different for any two whose terms may differ."""
    return f"{VERSION}:{vocabulary.language or 'detected'}"


def making(embedder: Embedder | None, vocabulary: Vocabulary) -> Making:
    """Name the way in which these two make passages."""
    if embedder is None:
        return Making("none", 0, name_of(vocabulary))
    return Making(embedder.name, embedder.dimensions, name_of(vocabulary))


def making_of(row: Row) -> Making:
    """Return what a row of the table names."""
    return Making(row["embedding"], row["dimensions"], row["vocabulary"])


async def register(
    database: Database, embedder: Embedder | None, vocabulary: Vocabulary
) -> PassageIndex:
    """Return the database's active index, made if there is none that holds passages.

    Raises EmbeddingModelMismatchError where the passages are another model's. Terms of an older
    vocabulary still serve; `memoryd reindex` renews them.
    """
    wanted = making(embedder, vocabulary)
    # A server that starts on a full disk still serves reads.
    async with database.transaction(ALL_ROOTS, even_if_full=True) as connection:
        await lock_registration(connection)
        active = await connection.fetchrow(
            "SELECT id, embedding, dimensions, vocabulary FROM passage_indexes WHERE active"
        )
        if active and making_of(active) != wanted and await _is_empty(connection, active):
            await drop_index(connection, active["id"])
            active = None
        if active is None:
            index_id = await find_or_add(connection, wanted)
            if wanted.dimensions:
                await connection.execute(create_vector_index(index_id, wanted.dimensions))
            await activate(connection, index_id)
            return PassageIndex(index_id, embedder, vocabulary)
    stored = making_of(active)
    if (stored.embedding, stored.dimensions) != (wanted.embedding, wanted.dimensions):
        raise EmbeddingModelMismatchError(str(stored), str(wanted))
    if stored != wanted:
        log.warning("terms_outdated", stored=stored.vocabulary, mended_by="memoryd reindex")
    return PassageIndex(active["id"], embedder, vocabulary)


async def prepare(
    database: Database, embedder: Embedder | None, vocabulary: Vocabulary
) -> PassageIndex:
    """Return the index for a way of making passages, active or not, for a reindex to fill."""
    async with database.transaction(ALL_ROOTS) as connection:
        await lock_registration(connection)
        index_id = await find_or_add(connection, making(embedder, vocabulary))
    return PassageIndex(index_id, embedder, vocabulary)


async def lock_registration(connection: Connection) -> None:
    """Let one process at a time decide which index is active, until its transaction ends."""
    await connection.execute("SELECT pg_advisory_xact_lock($1)", _REGISTRATION_LOCK)


async def find_or_add(connection: Connection, wanted: Making) -> int:
    """Return the number of the index whose passages are made so; a new one is not active."""
    named = (wanted.embedding, wanted.dimensions, wanted.vocabulary)
    found = await connection.fetchval(
        "SELECT id FROM passage_indexes "
        "WHERE (embedding, dimensions, vocabulary) = ($1, $2, $3) ORDER BY active DESC, id LIMIT 1",
        *named,
    )
    if found is None:
        found = await connection.fetchval(
            "INSERT INTO passage_indexes (embedding, dimensions, vocabulary, active) "
            "VALUES ($1, $2, $3, false) RETURNING id",
            *named,
        )
    return int(found)


async def activate(connection: Connection, index_id: int) -> None:
    """Make an index the one that servers started from now on use."""
    await connection.execute("UPDATE passage_indexes SET active = false WHERE active")
    await connection.execute("UPDATE passage_indexes SET active = true WHERE id = $1", index_id)


def vector_index_name(index_id: int) -> str:
    """Return the name of the HNSW index of an index's vectors."""
    return f"passages_embedding_{int(index_id)}"


def create_vector_index(index_id: int, dimensions: int, *, concurrently: bool = False) -> str:
    """Return the statement that makes an index's vectors searchable by HNSW."""
    # Names and type modifiers cannot be bound; the values are integers of our own.
    return (
        f"CREATE INDEX {'CONCURRENTLY' if concurrently else ''} IF NOT EXISTS "
        f"{vector_index_name(index_id)} ON passages USING hnsw "
        f"((embedding::halfvec({int(dimensions)})) halfvec_cosine_ops) "
        f"WHERE index_id = {int(index_id)}"
    )


def drop_vector_index(index_id: int, *, concurrently: bool = False) -> str:
    """Return the statement that undoes it."""
    way = "CONCURRENTLY" if concurrently else ""
    return f"DROP INDEX {way} IF EXISTS {vector_index_name(index_id)}"


async def drop_index(connection: Connection, index_id: int) -> None:
    """Forget an index that holds no passages."""
    await connection.execute(drop_vector_index(index_id))
    await connection.execute("DELETE FROM passage_indexes WHERE id = $1", index_id)


async def _is_empty(connection: Connection, active: Row) -> bool:
    return not await connection.fetchval(
        "SELECT EXISTS (SELECT FROM passages WHERE index_id = $1)", active["id"]
    )
