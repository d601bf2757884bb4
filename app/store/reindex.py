"""`memoryd reindex`: makes the passages of another model or vocabulary, while servers run."""

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from app.db.database import ALL_ROOTS, UNHURRIED_SECONDS, Connection, Database
from app.errors import AppError, OperatorError
from app.indexing.formats import (
    activate,
    create_vector_index,
    drop_vector_index,
    format_of,
    lock_registration,
    vector_index_name,
)
from app.indexing.passages import PassageIndex
from app.namespaces import from_stored
from app.resources import Resources
from app.store import reindex_repository
from app.store.backfill import Backfill
from app.store.types import Address

Tell = Callable[[str], None]
"""Prints a line for the operator."""

_LOCK = 7_305_312
"""Advisory lock of the whole run."""

_BUILDING_KILOBYTES = 512 * 1024
"""Minimum memory for building a vector index; if its graph does not fit, building is slow."""

_PROGRESS_SECONDS = 10.0
_NAMED_ITEMS = 20

# Parallel workers would share the memory as one piece of /dev/shm, of which containers have little.
_UNHURRIED = """
SELECT set_config('statement_timeout', '0', false),
    set_config('max_parallel_maintenance_workers', '0', false),
    set_config('maintenance_work_mem', greatest(setting::bigint, $1)::text || 'kB', false)
FROM pg_settings WHERE name = 'maintenance_work_mem'
"""

_AS_BEFORE = """
RESET statement_timeout; RESET max_parallel_maintenance_workers; RESET maintenance_work_mem;
SELECT pg_advisory_unlock_all()
"""

_IS_UNDER_WAY = """
SELECT EXISTS (
    SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = 0 AND objid = $1::bigint::oid
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
)
"""

_IS_VALID = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass($1)"


class ReindexError(OperatorError):
    """The reindex cannot continue; the message says why and what to do."""


async def reindex(resources: Resources, tell: Tell, *, drop_others: bool = False) -> None:
    """Fill the configured index, make it the active one and, if requested, empty the others.

    May be interrupted anywhere: the next run continues from there. Raises ReindexError.
    """
    index, database = resources.index, resources.database
    async with _alone(database) as session:
        backfill = Backfill(resources, _progress(tell, await _count_items(session)))
        try:
            await _run(backfill)
            changed = await _build_vector_index(session, index)
            if not await _is_active(session, index):
                await _run(backfill)
                await _switch(database, index)
                tell(f"Servers started from now on use {_name(index)}.")
                await _run(backfill)
                changed = True
        except AppError as error:
            raise ReindexError(
                f"Stopped: {error.__cause__ or error}. Finished items stay indexed; "
                "run the command again to continue."
            ) from error
        finally:
            if backfill.indexed:
                tell(f"Indexed {_counted(backfill.indexed, 'item')}.")
        if drop_others and (dropped := await _empty_others(session, database, index)):
            tell(f"Dropped {_counted(dropped, 'passage')} made in other ways.")
            changed = True
        if not (changed or backfill.indexed):
            tell(f"Nothing to do: all is indexed for {_name(index)}.")


async def is_under_way(database: Database) -> bool:
    """Return whether a reindex is running."""
    async with database.connection(ALL_ROOTS) as connection:
        return bool(await connection.fetchval(_IS_UNDER_WAY, _LOCK))


async def half_filled(database: Database) -> list[str]:
    """Name the indexes that an interrupted reindex left."""
    async with database.connection(ALL_ROOTS) as connection:
        return [str(found) for found in await reindex_repository.find_unfinished(connection)]


@asynccontextmanager
async def _alone(database: Database) -> AsyncIterator[Connection]:
    """Open a connection for long statements; raises ReindexError during another run.

    PostgreSQL holds the lock until the last statement ended, even if this process is killed.
    """
    async with database.connection(ALL_ROOTS, unhurried=True) as session:
        if not await session.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):
            raise ReindexError("A reindex of this database is under way; wait for its end.")
        try:
            await session.execute(_UNHURRIED, _BUILDING_KILOBYTES)
            yield session
        finally:
            await session.execute(_AS_BEFORE)


def _progress(tell: Tell, items: int) -> Callable[[int], None]:
    """Return a function that reports the progress of the first pass; later passes are short."""
    furthest, due = 0, time.monotonic() + _PROGRESS_SECONDS

    def on_progress(walked: int) -> None:
        nonlocal furthest, due
        if walked > furthest:
            furthest = walked
            if time.monotonic() >= due:
                due = time.monotonic() + _PROGRESS_SECONDS
                tell(f"{walked:,} of {_counted(items, 'item')} …")

    return on_progress


async def _count_items(session: Connection) -> int:
    return int(await session.fetchval("SELECT count(*) FROM items", timeout=UNHURRIED_SECONDS))


async def _run(backfill: Backfill) -> None:
    await backfill.run()
    if backfill.refused:
        raise ReindexError(_refusal(backfill.refused))


def _refusal(refused: Mapping[Address, str]) -> str:
    lines = [
        f"  {'.'.join(from_stored(namespace))} {key}: {reason}"
        for (namespace, key), reason in list(refused.items())[:_NAMED_ITEMS]
    ]
    return "\n".join(
        [
            f"{_counted(len(refused), 'item')} cannot be indexed in this way:",
            *lines,
            *(["  …"] if len(refused) > len(lines) else []),
            "Put them again with other index paths, or delete them; then run the command again.",
        ]
    )


async def _build_vector_index(session: Connection, index: PassageIndex) -> bool:
    """Build the vector index if it does not exist; it does not block writers."""
    dimensions = format_of(index.embedder, index.vocabulary).dimensions
    valid = await session.fetchval(_IS_VALID, vector_index_name(index.id))
    if valid or not dimensions:
        return False
    if valid is False:  # an interrupted run left it unfinished
        await _unhurried(session, drop_vector_index(index.id, concurrently=True))
    await _unhurried(session, create_vector_index(index.id, dimensions, concurrently=True))
    return True


async def _unhurried(session: Connection, statement: str) -> None:
    await session.execute(statement, timeout=UNHURRIED_SECONDS)


async def _is_active(session: Connection, index: PassageIndex) -> bool:
    return bool(
        await session.fetchval("SELECT active FROM passage_indexes WHERE id = $1", index.id)
    )


async def _switch(database: Database, index: PassageIndex) -> None:
    async with database.transaction(ALL_ROOTS) as connection:
        await lock_registration(connection)
        await activate(connection, index.id)


async def _empty_others(session: Connection, database: Database, index: PassageIndex) -> int:
    """Delete the passages of other indexes; servers may still write to these indexes."""
    for index_id in await reindex_repository.find_other_indexes(session, index.id):
        await _unhurried(session, drop_vector_index(index_id, concurrently=True))
    position: Address | None = reindex_repository.FIRST
    total = 0
    while position is not None:
        async with database.transaction(ALL_ROOTS) as connection:
            position, dropped = await reindex_repository.drop_other_passages(
                connection, position, index.id
            )
        total += dropped
    return total


def _name(index: PassageIndex) -> str:
    made = format_of(index.embedder, index.vocabulary)
    return f"{made}, terms {made.vocabulary}"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
