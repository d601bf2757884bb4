"""Runs migrations on the connection or URL that `app.db.migrations` (or the command line) gives."""

import asyncio
from typing import Any

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from app.config import Settings
from app.db.database import FIND_PGVECTOR, PgvectorMissingError, sqlalchemy_url
from app.embedded import EmbeddedPostgres
from app.models import metadata

# Held by whoever migrates: others wait, then find that nothing is left to do.
_MIGRATION_LOCK = 7_305_312


def _is_ours(_object: Any, name: str | None, kind: str, *_: Any) -> bool:
    # The index over each model's vectors is made when the model is registered.
    return not (kind == "index" and name is not None and name.startswith("passages_embedding_"))


def _migrate(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        include_object=_is_ours,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


async def _connect_and_migrate(url: str) -> None:
    engine = create_async_engine(sqlalchemy_url(url), poolclass=NullPool)
    async with engine.connect() as connection:
        if (await connection.execute(text(FIND_PGVECTOR))).first() is None:
            raise PgvectorMissingError
        await connection.execute(text(f"SELECT pg_advisory_lock({_MIGRATION_LOCK})"))
        await connection.commit()
        await connection.run_sync(_migrate)
    await engine.dispose()


def _from_command_line() -> None:
    settings = Settings()
    if settings.database_url:
        asyncio.run(_connect_and_migrate(settings.database_url))
        return
    with EmbeddedPostgres(settings.data_dir) as embedded:
        asyncio.run(_connect_and_migrate(embedded.url))


if url := context.config.attributes.get("url"):
    asyncio.run(_connect_and_migrate(url))
else:
    _from_command_line()
