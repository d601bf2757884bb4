"""The table of served models' restrictions: loaded at the start, written in the background."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from functools import partial

from asyncpg import Record
from sqlalchemy import Column, Integer, PrimaryKeyConstraint, Table, Text

from app.background import attempt, background
from app.db.database import ALL_ROOTS, Connection, Database
from app.db.tables import TIME, metadata
from app.providers.capabilities import Capabilities, Restriction, ServedModel

RELOAD_SECONDS = 60.0
"""Time until a process knows of the changes that another one made."""

RETRY_SECONDS = 10.0
LAST_WRITE_SECONDS = 5.0

model_capabilities = Table(
    "model_capabilities",
    metadata,
    Column("address", Text, nullable=False, comment="Base URL of the server."),
    Column("model", Text, nullable=False),
    Column("feature", Text, nullable=False),
    Column("limit", Integer, comment="NULL: the feature is refused."),
    Column("reason", Text, nullable=False, comment="The provider's words."),
    Column("learned_at", TIME, nullable=False),
    PrimaryKeyConstraint("address", "model", "feature"),
    comment="Features that served models refuse, and their limits; forgotten after a week.",
)

_FIND_ALL = """
SELECT address, model, feature, "limit", reason, learned_at FROM model_capabilities
WHERE learned_at > $1 ORDER BY address, model, feature LIMIT 10000
"""

_WRITE = """
INSERT INTO model_capabilities (address, model, feature, "limit", reason, learned_at)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (address, model, feature) DO UPDATE SET
    "limit" = excluded."limit", reason = excluded.reason, learned_at = excluded.learned_at
"""

_DELETE = "DELETE FROM model_capabilities WHERE address = $1 AND model = $2 AND feature = $3"

_DELETE_ALL = """
WITH gone AS (
    DELETE FROM model_capabilities WHERE $1::text[] IS NULL OR model = ANY($1) RETURNING 1
)
SELECT count(*) FROM gone
"""

_DELETE_OLD = "DELETE FROM model_capabilities WHERE learned_at <= $1"


async def find_all(connection: Connection, since: datetime) -> list[Restriction]:
    """Return the restrictions learned since a moment."""
    return [_restriction_of(row) for row in await connection.fetch(_FIND_ALL, since)]


async def delete_all(connection: Connection, models: Sequence[str] | None) -> int:
    """Delete the restrictions of models with these names, or of all; return how many there were."""
    return int(await connection.fetchval(_DELETE_ALL, models))


async def write_changes(database: Database, capabilities: Capabilities) -> None:
    """Write the changes, and keep those that cannot be written at this moment."""
    if not (changes := capabilities.take_changes()):
        return
    try:
        async with database.transaction(ALL_ROOTS) as connection:
            for (model, feature), found in sorted(changes.items(), key=lambda change: change[0]):
                if found is None:
                    await connection.execute(_DELETE, model.address, model.name, feature)
                else:
                    await connection.execute(_WRITE, *_values(found))
            await connection.execute(_DELETE_OLD, capabilities.oldest)
    except BaseException:
        capabilities.put_back(changes)
        raise


async def synchronize(database: Database, capabilities: Capabilities) -> None:
    """Write the restrictions that this process learned, and load the others'."""
    await write_changes(database, capabilities)
    async with database.connection(ALL_ROOTS) as connection:
        capabilities.load(await find_all(connection, capabilities.oldest))


@asynccontextmanager
async def record_capabilities(
    capabilities: Capabilities, database: Database
) -> AsyncIterator[None]:
    """Load the known restrictions, and write those learned during the block."""
    await synchronize(database, capabilities)
    try:
        async with background(_synchronize_forever(database, capabilities)):
            yield
    finally:
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WRITE_SECONDS):
                await attempt(
                    "writing capabilities", partial(write_changes, database, capabilities)
                )


async def _synchronize_forever(database: Database, capabilities: Capabilities) -> None:
    while True:
        with suppress(TimeoutError):
            async with asyncio.timeout(RELOAD_SECONDS):
                await capabilities.wait_for_changes()
        work = partial(synchronize, database, capabilities)
        if not await attempt("sharing capabilities", work):
            await asyncio.sleep(RETRY_SECONDS)


def _values(found: Restriction) -> tuple[object, ...]:
    place = (found.model.address, found.model.name, found.feature)
    return (*place, found.limit, found.reason, found.learned_at)


def _restriction_of(row: Record) -> Restriction:
    return Restriction(
        model=ServedModel(row["address"], row["model"]),
        feature=row["feature"],
        limit=row["limit"],
        reason=row["reason"],
        learned_at=row["learned_at"],
    )
