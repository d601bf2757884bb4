"""Index formats: which embedder and vocabulary the passages in the database were made with."""

import json
from dataclasses import dataclass

import structlog
from sqlalchemy import Boolean, Column, Identity, Index, Integer, SmallInteger, Table, Text, text
from typing_extensions import override

from app.db.database import ALL_ROOTS, Connection, Database, Row
from app.db.tables import metadata
from app.errors import OperatorError
from app.indexing.passages import PassageIndex
from app.indexing.terms import VERSION, Vocabulary
from app.providers.embedder import Embedder

passage_indexes = Table(
    "passage_indexes",
    metadata,
    Column("id", SmallInteger, Identity(), primary_key=True),
    Column(
        "embedding",
        Text,
        nullable=False,
        comment="As MEMORYD_EMBEDDING names it, with the form of passages, or none.",
    ),
    Column("dimensions", Integer, nullable=False),
    Column("vocabulary", Text, nullable=False, comment="Version and language of the terms."),
    Column("active", Boolean, nullable=False),
    Index("passage_indexes_active_index", "active", unique=True, postgresql_where=text("active")),
    comment="The ways in which passages were made; one is active.",
)

_REGISTRATION_LOCK = 7_305_311
"""Advisory lock: several processes may start at once on an empty database."""

log = structlog.get_logger()


class EmbeddingModelMismatchError(OperatorError):
    """The database holds passages of another model than the configured one."""

    def __init__(self, stored: str, configured: str) -> None:
        super().__init__(
            f"The database is indexed for {stored}, but this server is configured for "
            f"{configured}; vectors of two models cannot be compared. "
            "Run `memoryd reindex` with this configuration, while servers with the old one go on "
            f"serving, or set MEMORYD_EMBEDDING={stored.partition(' ')[0]}"
            + (
                " and the prefix and input type of passages as they were."
                if "passage_" in stored + configured
                else "."
            )
        )


@dataclass(frozen=True, slots=True)
class IndexFormat:
    """The embedder and vocabulary of an index, as the database names them."""

    embedding: str
    dimensions: int
    vocabulary: str

    @override
    def __str__(self) -> str:
        return self.embedding + (f" ({self.dimensions} dimensions)" if self.dimensions else "")


def name_vocabulary(vocabulary: Vocabulary) -> str:
    """Return the name of a vocabulary; two whose terms may differ have different names."""
    return f"{VERSION}:{vocabulary.language or 'detected'}"


def name_embedding(embedder: Embedder) -> str:
    """Return the name of an embedder with the form of its passages, which their vectors depend on.

    The form of queries is no part of it: another one needs no reindex.
    """
    form = embedder.forms.passage
    prefix = f" passage_prefix={json.dumps(form.prefix, ensure_ascii=False)}" if form.prefix else ""
    input_type = f" passage_input_type={form.input_type}" if form.input_type else ""
    return f"{embedder.name}{prefix}{input_type}"


def format_of(embedder: Embedder | None, vocabulary: Vocabulary) -> IndexFormat:
    """Return the format of passages that an embedder and a vocabulary make."""
    if embedder is None:
        return IndexFormat("none", 0, name_vocabulary(vocabulary))
    return IndexFormat(name_embedding(embedder), embedder.dimensions, name_vocabulary(vocabulary))


def read_format(row: Row) -> IndexFormat:
    """Return the format in a row of the table."""
    return IndexFormat(row["embedding"], row["dimensions"], row["vocabulary"])


async def register(
    database: Database, embedder: Embedder | None, vocabulary: Vocabulary
) -> PassageIndex:
    """Return the database's active index; create it if no index holds passages.

    Raises EmbeddingModelMismatchError if the passages are another model's. Terms of an older
    vocabulary still work; `memoryd reindex` renews them.
    """
    wanted = format_of(embedder, vocabulary)
    # A server that starts on a full disk still serves reads.
    async with database.transaction(ALL_ROOTS, even_if_full=True) as connection:
        await lock_registration(connection)
        active = await connection.fetchrow(
            "SELECT id, embedding, dimensions, vocabulary FROM passage_indexes WHERE active"
        )
        if active and read_format(active) != wanted and await _is_empty(connection, active):
            await drop_index(connection, active["id"])
            active = None
        if active is None:
            index_id = await find_or_add(connection, wanted)
            if wanted.dimensions:
                await connection.execute(create_vector_index(index_id, wanted.dimensions))
            await activate(connection, index_id)
            return PassageIndex(index_id, embedder, vocabulary)
    stored = read_format(active)
    if (stored.embedding, stored.dimensions) != (wanted.embedding, wanted.dimensions):
        raise EmbeddingModelMismatchError(str(stored), str(wanted))
    if stored != wanted:
        log.warning("terms_outdated", stored=stored.vocabulary, fix="memoryd reindex")
    return PassageIndex(active["id"], embedder, vocabulary)


async def find_dimensions(database: Database, embedder: Embedder) -> int | None:
    """Return the length of the active index's vectors, if this embedder made them."""
    async with database.connection(ALL_ROOTS) as connection:
        found: int | None = await connection.fetchval(
            "SELECT dimensions FROM passage_indexes WHERE active AND embedding = $1",
            name_embedding(embedder),
        )
    return found


async def prepare(
    database: Database, embedder: Embedder | None, vocabulary: Vocabulary
) -> PassageIndex:
    """Return the index of a format, active or not, for a reindex to fill."""
    async with database.transaction(ALL_ROOTS) as connection:
        await lock_registration(connection)
        index_id = await find_or_add(connection, format_of(embedder, vocabulary))
    return PassageIndex(index_id, embedder, vocabulary)


async def lock_registration(connection: Connection) -> None:
    """Let one process at a time decide which index is active, until its transaction ends."""
    await connection.execute("SELECT pg_advisory_xact_lock($1)", _REGISTRATION_LOCK)


async def find_or_add(connection: Connection, wanted: IndexFormat) -> int:
    """Return the number of the index with a format; a new one is not active."""
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
    """Make an index the one that servers use from their next start."""
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
    """Return the statement that drops an index's HNSW index."""
    option = "CONCURRENTLY" if concurrently else ""
    return f"DROP INDEX {option} IF EXISTS {vector_index_name(index_id)}"


async def drop_index(connection: Connection, index_id: int) -> None:
    """Delete an index that holds no passages."""
    await connection.execute(drop_vector_index(index_id))
    await connection.execute("DELETE FROM passage_indexes WHERE id = $1", index_id)


async def _is_empty(connection: Connection, active: Row) -> bool:
    return not await connection.fetchval(
        "SELECT EXISTS (SELECT FROM passages WHERE index_id = $1)", active["id"]
    )
