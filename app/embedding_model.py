"""The model whose vectors the database holds: one, and starting with another is refused."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Boolean, Column, Identity, Index, Integer, SmallInteger, Table, Text, text

from app.db import EVERYTHING, Connection, Database, Row, metadata
from app.errors import AppError
from app.providers.embeddings.base import Embedder, Vector
from app.providers.errors import ProviderError

embedding_models = Table(
    "embedding_models",
    metadata,
    Column("id", SmallInteger, Identity(), primary_key=True),
    Column("name", Text, nullable=False),
    Column("dimensions", Integer, nullable=False),
    Column("active", Boolean, nullable=False),
    Index("embedding_models_active_index", "active", unique=True, postgresql_where=text("active")),
    comment="Models whose vectors the database holds; one is active.",
)

_REGISTRATION_LOCK = 7_305_311
"""Advisory lock: several processes may start at once on an empty database."""


class EmbeddingModelMismatchError(Exception):
    """The database holds vectors of another model than the configured one."""

    def __init__(self, stored: str, configured: str, passages: int) -> None:
        super().__init__(
            f"The database holds {passages} embedded passages of {stored}, but this server is "
            f"configured for {configured}; vectors of two models cannot be compared. "
            f"Set MEMORYD_EMBEDDING={stored.partition(' ')[0]}, or start on an empty database "
            "(another MEMORYD_DATA_DIR or MEMORYD_DATABASE_URL) and put the items there again."
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
class EmbeddingModel:
    """An embedder and the number its vectors are stored under."""

    id: int
    embedder: Embedder

    async def embed(self, texts: Sequence[str], *, urgent: bool = False) -> list[Vector]:
        """Return one unit vector a text; raises EmbeddingFailedError."""
        try:
            return await self.embedder.embed(texts, urgent=urgent)
        except ProviderError as error:
            raise EmbeddingFailedError(self.embedder.name, error) from error


async def register(database: Database, embedder: Embedder | None) -> EmbeddingModel | None:
    """Make `embedder` the database's model, or raise EmbeddingModelMismatchError."""
    async with database.transaction(EVERYTHING) as connection:
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _REGISTRATION_LOCK)
        active = await connection.fetchrow(
            "SELECT id, name, dimensions FROM embedding_models WHERE active"
        )
        if active and embedder and _label(embedder) == _label_of(active):
            return EmbeddingModel(active["id"], embedder)
        if active:
            await _retire(connection, active, embedder)
        if embedder is None:
            return None
        return EmbeddingModel(await _activate(connection, embedder), embedder)


def _label(embedder: Embedder) -> str:
    return f"{embedder.name} ({embedder.dimensions} dimensions)"


def _label_of(row: Row) -> str:
    return f"{row['name']} ({row['dimensions']} dimensions)"


async def _retire(connection: Connection, active: Row, new: Embedder | None) -> None:
    """Drop a model that embedded nothing; refuse when it did."""
    passages = await connection.fetchval(
        "SELECT count(*) FROM passages WHERE model_id = $1", active["id"]
    )
    if passages:
        configured = _label(new) if new else "none"
        raise EmbeddingModelMismatchError(_label_of(active), configured, passages)
    await connection.execute(f"DROP INDEX IF EXISTS passages_embedding_{active['id']}")
    await connection.execute("DELETE FROM embedding_models WHERE id = $1", active["id"])


async def _activate(connection: Connection, embedder: Embedder) -> int:
    model_id = await connection.fetchval(
        "INSERT INTO embedding_models (name, dimensions, active) VALUES ($1, $2, true) "
        "RETURNING id",
        embedder.name,
        embedder.dimensions,
    )
    # Names and type modifiers cannot be bound; both values are integers of our own.
    await connection.execute(
        f"CREATE INDEX passages_embedding_{int(model_id)} ON passages USING hnsw "
        f"((embedding::halfvec({int(embedder.dimensions)})) halfvec_cosine_ops) "
        f"WHERE model_id = {int(model_id)}"
    )
    return int(model_id)
