"""Applying writes: all of them in one transaction, or none."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import TypeAlias

import asyncpg

from app.auth.access import Access
from app.clock import Clock
from app.db.database import Connection, Database
from app.db.optimistic import TooManyConflictsError
from app.http.conditional import PreconditionFailedError
from app.indexing.indexer import Indexer
from app.providers.embeddings.base import Vector
from app.store import repository
from app.store.writes import Address, Delete, Put, Write, Written

Also: TypeAlias = Callable[[Connection, Mapping[Address, Written]], Awaitable[None]]
"""What else a transaction does once the items are written, told what became of the puts."""

_ATTEMPTS = 5

# Each means that another transaction got in between; the next attempt sees what it did.
_PASSING = (
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.UniqueViolationError,
    asyncpg.ForeignKeyViolationError,
)


class _OvertakenError(Exception):
    """An item that was to be created appeared after the check."""


class Changes:
    """The one way items change."""

    def __init__(self, database: Database, indexer: Indexer, clock: Clock) -> None:
        self._database = database
        self._indexer = indexer
        self._clock = clock

    async def apply(
        self, writes: Sequence[Write], access: Access, *, also: Also | None = None
    ) -> dict[Address, Written]:
        """Commit the last write of every address; return what became of the puts.

        Raises PreconditionFailedError, EmbeddingFailedError and TooManyConflictsError, each
        with nothing changed. Writers that were in one another's way queue up for their
        namespaces, and so do those who both put and delete, whose locks have no common order,
        and those who do something `also`: in the same transaction, again on every attempt, and
        with nothing changed by what it raises.
        """
        final = {write.address: write for write in writes}
        vectors = await self._embed(final)
        queue = also is not None or len({type(write) for write in final.values()}) > 1
        for _ in range(_ATTEMPTS):
            try:
                async with self._database.transaction(access.root) as connection:
                    if queue:
                        await repository.queue(connection, {namespace for namespace, _ in final})
                    written = await self._apply(connection, final, vectors, access.actor)
                    if also is not None:
                        await also(connection, written)
                    return written
            except (*_PASSING, _OvertakenError):
                queue = True
        raise TooManyConflictsError

    async def _embed(self, writes: Mapping[Address, Write]) -> dict[Address, list[Vector | None]]:
        puts = [write for write in writes.values() if isinstance(write, Put)]
        vectors = await self._indexer.embed([put.pieces for put in puts])
        return {put.address: of_item for put, of_item in zip(puts, vectors, strict=True)}

    async def _apply(
        self,
        connection: Connection,
        writes: Mapping[Address, Write],
        vectors: Mapping[Address, list[Vector | None]],
        actor: str,
    ) -> dict[Address, Written]:
        now = self._clock.now()
        puts = [write for _, write in sorted(writes.items()) if isinstance(write, Put)]
        deletes = [address for address, write in writes.items() if isinstance(write, Delete)]
        absent = await _check_preconditions(connection, writes, now)
        written = await repository.upsert(connection, puts, actor=actor, now=now) if puts else {}
        if any(written[address].inserted is False for address in absent & written.keys()):
            raise _OvertakenError
        if puts:
            item_ids = [written[put.address].item_id for put in puts]
            of_puts = [vectors[put.address] for put in puts]
            await repository.replace_passages(
                connection, puts, item_ids, of_puts, self._indexer.index_id
            )
        if deletes:
            await repository.delete(connection, deletes, actor=actor, now=now)
        return written


async def _check_preconditions(
    connection: Connection, writes: Mapping[Address, Write], now: datetime
) -> set[Address]:
    """Lock what conditional writes are about; return the addresses where nothing was to lock."""
    conditional = {
        address: write.precondition for address, write in writes.items() if write.precondition
    }
    if not conditional:
        return set()
    locked = await repository.lock(connection, conditional, now)
    for address, precondition in conditional.items():
        found = locked.get(address)
        version = found.version if found and not found.expired else None
        if not precondition.holds(version):
            raise PreconditionFailedError(f"the item {address[1]!r}", version)
    return conditional.keys() - locked.keys()
