"""`memoryd reindex` and the backfill: making the passages that items lack, while clients write."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

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
from app.indexing.passages import (
    Embedded,
    EmbeddingFailedError,
    InvalidIndexPathError,
    Passage,
    PassageIndex,
)
from app.namespaces import from_stored
from app.providers.embedder import Vector
from app.resources import Resources
from app.store import reindex_repository, repository
from app.store.backlog_repository import settle, settle_all
from app.store.reindex_repository import WalkedItem
from app.store.repository import ItemPassages
from app.store.types import Address

_WRITTEN_PASSAGES = 1_000
"""Passages that one transaction writes before it ends; writers of its items wait for it."""

_PASSES = 5
"""Maximum passes of one backfill: servers with another configuration may write faster."""

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


@dataclass(frozen=True, slots=True)
class _Item:
    """An item as it was read; it may have been written again since."""

    address: Address
    item_id: int
    version: int
    passages: list[Passage]


class Backfill:
    """Fills a process's index; `refused` has the items that cannot be indexed, and why.

    An item whose text the model fails on is indexed by its words, and counted as `waiting`.
    `on_progress` is called with the number of items that a pass has read.
    """

    def __init__(self, resources: Resources, on_progress: Callable[[int], None]) -> None:
        self._database = resources.database
        self._clock = resources.clock
        self._index = resources.index
        self._on_progress = on_progress
        self.indexed = 0
        self.waiting = 0
        self.refused: dict[Address, str] = {}

    async def run(self) -> None:
        """Index every item that lacks passages, and those that lose them during the run.

        Raises EmbeddingFailedError if the model cannot go on; what is indexed by then stays.
        """
        for _ in range(_PASSES):
            if not await self._pass():
                return

    async def _pass(self) -> int:
        """Go through all items once; return how many lacked passages."""
        position = reindex_repository.FIRST
        walked = found = 0
        while read := await self._next(position):
            position = read[-1].address
            items = [item for one in read if one.value and (item := await self._cut(one))]
            for some in _portions(items):
                embedded, error = await self._embed(some)
                await self._write(embedded)
                if error is not None:
                    raise error
            walked += len(read)
            found += len(items)
            self._on_progress(walked)
        return found

    async def _next(self, position: Address) -> list[WalkedItem]:
        async with self._database.connection(ALL_ROOTS) as connection:
            return await reindex_repository.find_next(connection, position, self._index.id)

    async def _cut(self, item: WalkedItem) -> _Item | None:
        await asyncio.sleep(0)  # a server that runs this answers requests in between
        if item.address in self.refused:
            return None
        try:
            value = json.loads(item.value or "{}")
            passages = await self._index.cut(value, item.index_paths, item.questions)
        except InvalidIndexPathError as error:
            self.refused[item.address] = error.detail
            return None
        if not passages:
            return None
        return _Item(item.address, item.id, item.version, passages)

    async def _embed(
        self, items: Sequence[_Item]
    ) -> tuple[list[tuple[_Item, list[Vector | None]]], EmbeddingFailedError | None]:
        """Return the items that can be written with their passages' vectors.

        The error is the one for which the server cannot go on, if there is one.
        """
        addresses = [item.address for item in items]
        async with self._database.connection(ALL_ROOTS) as connection:
            known = await reindex_repository.find_vectors(connection, addresses, self._index.id)
        texts = dict.fromkeys(passage.text for item in items for passage in item.passages)
        missing = [text for text in texts if text not in known]
        embedded: dict[str, Embedded] = {
            **known,
            **dict(zip(missing, await self._index.embed_each(missing), strict=True)),
        }
        of_server = {
            text: one
            for text, one in embedded.items()
            if isinstance(one, EmbeddingFailedError) and not one.is_about_text
        }
        made = [
            (item, [_vector(embedded[passage.text]) for passage in item.passages])
            for item in items
            if not any(passage.text in of_server for passage in item.passages)
        ]
        return made, next(iter(of_server.values()), None)

    async def _write(self, made: Sequence[tuple[_Item, list[Vector | None]]]) -> None:
        """Write the passages of the items that have not changed since they were read."""
        addresses = [item.address for item, _ in made]
        async with self._database.transaction(ALL_ROOTS) as connection:
            now = self._clock.now()
            locked = await repository.lock(connection, addresses, now)
            versions = {address: found.version for address, found in locked.items()}
            current = [
                (item, vectors)
                for item, vectors in made
                if versions.get(item.address) == item.version
            ]
            await repository.replace_passages(
                connection,
                [
                    ItemPassages(item.address, item.item_id, item.passages, vectors)
                    for item, vectors in current
                ],
                self._index.id,
                keep_other_indexes=True,
            )
            if self._index.embedder is not None:
                await settle(connection, [item.address for item, _ in current], self._index.id, now)
                self.waiting += sum(
                    any(vector is None for vector in vectors) for _, vectors in current
                )
        self.indexed += len(current)


def _vector(embedded: Embedded) -> Vector | None:
    return None if isinstance(embedded, EmbeddingFailedError) else embedded


def _portions(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    portion: list[_Item] = []
    passages = 0
    for item in items:
        portion.append(item)
        passages += len(item.passages)
        if passages >= _WRITTEN_PASSAGES:
            yield portion
            portion, passages = [], 0
    if portion:
        yield portion


async def catch_up(resources: Resources) -> int:
    """Index items written by servers with another configuration; return their number.

    Does so for the active index only: others are going out of use, or being filled.
    """
    async with resources.database.connection(ALL_ROOTS) as connection:
        if not await reindex_repository.may_lack_passages(connection, resources.index.id):
            return 0
    backfill = Backfill(resources, on_progress=lambda _walked: None)
    await backfill.run()
    return backfill.indexed


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
            embeds = index.embedder is not None
            await settle_all(session, index.id, resources.clock.now(), embeds=embeds)
        except AppError as error:
            raise ReindexError(
                f"Stopped: {error.__cause__ or error}. Finished items stay indexed; "
                "run the command again to continue."
            ) from error
        finally:
            if backfill.indexed:
                tell(f"Indexed {_counted(backfill.indexed, 'item')}.")
            if backfill.waiting:
                tell(
                    f"The model fails on texts of {_counted(backfill.waiting, 'item')}: found by "
                    "their words, until a worker can embed them."
                )
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
