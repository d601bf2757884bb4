"""Writing items: commands are prepared without a connection, and applied in one transaction."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from typing import Self, TypeAlias

import asyncpg
import structlog

from app.auth.access import Access, Verb
from app.clock import Clock
from app.config import Settings
from app.db.database import Connection, Database, TooManyConflictsError
from app.errors import InvalidRequestError
from app.http.headers import Precondition, PreconditionFailedError
from app.indexing.passages import Embedded, EmbeddingFailedError, PassageIndex, check_path
from app.json_values import JsonObject, JsonText, UnstorableError, check_storable, to_json_text
from app.namespaces import Labels, Root
from app.resources import Resources
from app.store import history_repository, repository
from app.store.repository import ItemPassages
from app.store.types import (
    Address,
    Delete,
    InvalidValueError,
    Item,
    ItemNotFoundError,
    Patch,
    PreparedPut,
    Put,
    PutResult,
    Ttl,
    VersionHasNoValueError,
    VersionNotFoundError,
    Write,
)

MAX_ADDRESS_BYTES = 2_500
"""Stored namespace and key together: PostgreSQL indexes rows of up to 2,704 bytes."""

RESERVED_LABEL = "langgraph"
"""LangGraph keeps its own records below this label."""

_ATTEMPTS = 5

_PATCH_ATTEMPTS = 20
"""A patch is repeated if another writer came first; each round lets one of them through."""

_logger = structlog.get_logger("memoryd.store")

_Write: TypeAlias = Callable[[Connection], Awaitable[dict[Address, PutResult]]]

# Each means that another transaction got in between; the next attempt sees its changes.
_CONFLICTS = (
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.UniqueViolationError,
    asyncpg.ForeignKeyViolationError,
)


class _InsertedError(Exception):
    """Another transaction inserted an item that this one found missing."""


class WriteAttempt:
    """One transaction that writes items, and runs other statements.

    A conflict with another transaction ends it without an error; `is_committed` is then false.
    """

    def __init__(self, database: Database, root: Root, write: _Write) -> None:
        self.is_committed = False
        self.write = write
        """Writes the items, and returns the results of the puts."""
        self._database = database
        self._root = root

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Open the transaction, and commit it at the end."""
        with suppress(*_CONFLICTS, _InsertedError):
            async with self._database.transaction(self._root) as connection:
                yield connection
            self.is_committed = True


def check_not_reserved(labels: Labels) -> None:
    """Raise InvalidRequestError for a namespace that clients may not write to."""
    if labels[:1] == [RESERVED_LABEL]:
        raise InvalidRequestError(
            f'namespace begins with "{RESERVED_LABEL}", which is reserved; '
            "choose another first label.",
            field="namespace[0]",
        )


class ItemWriter:
    """Writes items on behalf of one caller; only the sweeper ends items in another way."""

    def __init__(
        self, database: Database, index: PassageIndex, clock: Clock, settings: Settings
    ) -> None:
        self._database = database
        self._index = index
        self._clock = clock
        self._max_value_bytes = settings.max_value_bytes
        minutes = settings.default_ttl_minutes
        self._default_ttl = None if minutes is None else timedelta(minutes=minutes)

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make the writer from a process's resources."""
        return cls(resources.database, resources.index, resources.clock, resources.settings)

    async def put(self, access: Access, put: Put) -> int:
        """Write an item's whole next state; return its version."""
        check_not_reserved(access.relative(put.address.namespace))
        prepared = await self.prepare(access, put)
        return (await self.write(access, [prepared]))[put.address].version

    async def patch(self, access: Access, patch: Patch) -> Item:
        """Merge into an item's value; return the item as it now is."""
        access.require(patch.address.namespace, Verb.WRITE)
        try:
            check_storable(patch.value, "value")
        except UnstorableError as error:
            raise InvalidValueError.of(error) from error
        for _ in range(_PATCH_ATTEMPTS):
            item = await self._present(access, patch.address)
            if not patch.precondition.holds(item.version):
                raise PreconditionFailedError(patch.address.description, item.version)
            try:
                return await self._replace(access, _patched(item, patch))
            except InvalidValueError as error:
                if access.allows(access.relative(patch.address.namespace), Verb.READ):
                    raise
                raise _merged_too_large() from error  # its size would reveal the old value's
            except PreconditionFailedError:
                continue  # it was changed since it was read: merge into its new state
        raise TooManyConflictsError

    async def delete(self, access: Access, delete: Delete) -> None:
        """End an item, whether or not it exists."""
        await self.write(access, [delete])

    async def restore(
        self, access: Access, address: Address, version: int, precondition: Precondition
    ) -> Item:
        """Make an earlier version present again, as a new version; it never expires."""
        access.require(address.namespace, Verb.WRITE)
        async with self._database.connection(access.root) as connection:
            past = await history_repository.find_version(connection, address, version)
        may_read = access.allows(access.relative(address.namespace), Verb.READ)
        if past is None or (past.value is None and not may_read):
            raise VersionNotFoundError(address.key, version)
        if past.value is None:
            raise VersionHasNoValueError(address.key, version, past.action)
        return await self._replace(access, Put.restoring(past, precondition, Ttl.NONE))

    async def prepare(self, access: Access, put: Put) -> PreparedPut:
        """Check a put and cut its value into passages.

        Raises ForbiddenError, InvalidRequestError, InvalidIndexPathError, and InvalidValueError.
        """
        access.require(put.address.namespace, Verb.WRITE)
        _check_size(put.address)
        for place, path in enumerate(put.index_paths or ()):
            check_path(path, f"index[{place}]")
        return PreparedPut(
            address=put.address,
            value=put.text or _value_text(put.value, self._max_value_bytes),
            metadata=put.metadata,
            index_paths=put.index_paths,
            ttl=self._lifetime(put.ttl),
            action=put.action,
            precondition=put.precondition,
            passages=await self._index.cut(put.value, put.index_paths, put.metadata.questions),
            requires_embedding=put.requires_embedding,
        )

    async def embed(self, writes: Sequence[Write]) -> list[Write | EmbeddingFailedError]:
        """Return writes with the vectors of their passages.

        A put that fails because it requires them is replaced by its error. Other puts go without
        vectors that cannot be had; the worker adds these later.
        """
        puts = [
            write for write in writes if isinstance(write, PreparedPut) and write.vectors is None
        ]
        texts = [text for put in puts for text in put.texts]
        found = await self._index.embed_each(texts)
        embedded = iter(found)
        results: list[Write | EmbeddingFailedError] = []
        for write in writes:
            if isinstance(write, PreparedPut) and write.vectors is None:
                try:
                    results.append(write.with_vectors([next(embedded) for _ in write.passages]))
                except EmbeddingFailedError as error:
                    results.append(error)
            else:
                results.append(write)
        _log_waiting(results, _first_reason(found))
        return results

    async def write(self, access: Access, writes: Sequence[Write]) -> dict[Address, PutResult]:
        """Commit the last write of every address; return the results of the puts.

        Raises PreconditionFailedError, EmbeddingFailedError, and TooManyConflictsError, each
        with nothing changed. Writers that conflicted queue for their namespaces, and so do
        those that both put and delete, whose locks have no common order.
        """
        results: dict[Address, PutResult] = {}
        is_mixed = len({type(write) for write in writes}) > 1
        async for attempt in self._attempts(access, writes, queue=is_mixed):
            async with attempt.transaction() as connection:
                results = await attempt.write(connection)
        return results

    def attempts(self, access: Access, writes: Sequence[Write]) -> AsyncIterator["WriteAttempt"]:
        """Yield attempts to commit writes and other statements, until one does not conflict.

        Raises the errors of `write`, and those of the statements, with nothing changed. All such
        writers queue for their namespaces.
        """
        return self._attempts(access, writes, queue=True)

    async def _attempts(
        self, access: Access, writes: Sequence[Write], *, queue: bool
    ) -> AsyncIterator["WriteAttempt"]:
        final = await self._embed({write.address: write for write in writes})

        async def write(connection: Connection) -> dict[Address, PutResult]:
            if queue:
                await repository.queue(connection, {address.namespace for address in final})
            return await self._apply(connection, final, access.actor)

        for _ in range(_ATTEMPTS):
            attempt = WriteAttempt(self._database, access.root, write)
            yield attempt
            if attempt.is_committed:
                return
            queue = True
        raise TooManyConflictsError

    async def _replace(self, access: Access, put: Put) -> Item:
        prepared = await self.prepare(access, put)
        embedded = prepared.with_vectors(await self._index.embed_each(prepared.texts))
        return embedded.to_item((await self.write(access, [embedded]))[put.address])

    async def _present(self, access: Access, address: Address) -> Item:
        async with self._database.connection(access.root) as connection:
            item = await repository.find(connection, address, self._clock.now())
        if item is None:
            raise ItemNotFoundError(address.key)
        return item

    async def _embed(self, writes: Mapping[Address, Write]) -> dict[Address, Write]:
        """Return writes with vectors; raises EmbeddingFailedError if one requires them."""
        embedded: dict[Address, Write] = {}
        for address, write in zip(writes, await self.embed(list(writes.values())), strict=True):
            if isinstance(write, EmbeddingFailedError):
                raise write
            embedded[address] = write
        return embedded

    async def _apply(
        self,
        connection: Connection,
        writes: Mapping[Address, Write],
        actor: str,
    ) -> dict[Address, PutResult]:
        now = self._clock.now()
        puts = [write for _, write in sorted(writes.items()) if isinstance(write, PreparedPut)]
        deletes = [address for address, write in writes.items() if isinstance(write, Delete)]
        absent = await _check_preconditions(connection, writes, now)
        results: dict[Address, PutResult] = {}
        if puts:
            results = await repository.upsert(connection, puts, actor=actor, now=now)
            if any(results[address].inserted is False for address in absent & results.keys()):
                raise _InsertedError
            passages = [
                ItemPassages(
                    put.address, results[put.address].item_id, put.passages, put.vectors or ()
                )
                for put in puts
            ]
            await repository.replace_passages(connection, passages, self._index.id)
        if deletes:
            await repository.delete(connection, deletes, actor=actor, now=now)
        return results

    def _lifetime(self, ttl: timedelta | Ttl) -> timedelta | None:
        if isinstance(ttl, timedelta):
            return ttl
        return self._default_ttl if ttl is Ttl.DEFAULT else None


def _log_waiting(results: Iterable[Write | EmbeddingFailedError], reason: str | None) -> None:
    waiting = sum(isinstance(one, PreparedPut) and one.waits for one in results)
    if waiting and reason is not None:
        _logger.warning("stored without embedding", items=waiting, reason=reason)


def _first_reason(found: Iterable[Embedded]) -> str | None:
    return next((str(e.__cause__) for e in found if isinstance(e, EmbeddingFailedError)), None)


async def _check_preconditions(
    connection: Connection, writes: Mapping[Address, Write], now: datetime
) -> set[Address]:
    """Lock the items of conditional writes; return the addresses that have no row to lock."""
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
            raise PreconditionFailedError(address.description, version)
    return conditional.keys() - locked.keys()


def _check_size(address: Address) -> None:
    size = len(address.namespace.encode()) + len(address.key.encode())
    if size > MAX_ADDRESS_BYTES:
        raise InvalidRequestError(
            f"namespace and key together are {size:,} bytes; use at most {MAX_ADDRESS_BYTES:,}.",
            field="namespace",
        )


def _value_text(value: JsonObject, max_bytes: int) -> JsonText:
    try:
        check_storable(value, "value")
    except UnstorableError as error:
        raise InvalidValueError.of(error) from error
    text = to_json_text(value)
    size = len(text.encode())
    if size > max_bytes:
        raise InvalidValueError(
            f"value is {size:,} bytes of JSON; this server takes at most {max_bytes:,} "
            "(MEMORYD_MAX_VALUE_BYTES). Split it into several items.",
            field="value",
        )
    return text


def merge_patch(target: JsonObject, patch: JsonObject) -> JsonObject:
    """Return an object with a JSON merge patch (RFC 7386) applied; neither argument is changed."""
    merged = dict(target)
    for name, change in patch.items():
        before = merged.get(name)
        if change is None:
            merged.pop(name, None)
        elif isinstance(change, dict):
            merged[name] = merge_patch(before if isinstance(before, dict) else {}, change)
        else:
            merged[name] = change
    return merged


def _patched(item: Item, patch: Patch) -> Put:
    return Put.replacing(
        item,
        value=merge_patch(item.parse_value(), patch.value),
        metadata=patch.change_metadata(item.metadata),
        action="patch",
    )


def _merged_too_large() -> InvalidValueError:
    return InvalidValueError(
        "value is too large once it is merged. Put the whole value, or use another key.",
        field="value",
    )
