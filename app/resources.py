"""What a process opens once and every service is built from."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from app.clock import Clock, SystemClock
from app.config import Settings
from app.db import Database
from app.embedding_model import EmbeddingModel, register
from app.migrations import require_current
from app.providers.embeddings.base import Embedder
from app.providers.embeddings.batching import BatchingEmbedder
from app.providers.embeddings.registry import create_embedder


@dataclass(frozen=True, slots=True)
class Resources:
    """The open parts of one process."""

    settings: Settings
    database: Database
    model: EmbeddingModel | None
    clock: Clock


@asynccontextmanager
async def open_resources(
    settings: Settings,
    url: str,
    *,
    embedder: Embedder | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[Resources]:
    """Open everything a process needs, and close it again.

    `embedder` and `clock` replace the configured ones in tests. Raises SchemaMismatchError and
    EmbeddingModelMismatchError.
    """
    await require_current(url)
    database = await Database.open(url, pool_size=settings.database_pool_size)
    chosen = embedder or await _configured_embedder(settings)
    batching = BatchingEmbedder(chosen) if chosen else None
    try:
        model = await register(database, batching)
        yield Resources(settings, database, model, clock or SystemClock())
    finally:
        if batching:
            await batching.aclose()
        await database.close()
