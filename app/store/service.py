"""What may be done with items: the decisions behind the store's routes."""

import json
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from datetime import datetime, timedelta
from typing import Self

from asyncpg import Record

from app.auth.access import Access, Verb
from app.clock import Clock
from app.config import Settings
from app.db.database import Database, Row
from app.db.optimistic import TooManyConflictsError
from app.db.pages import PAGE_BYTES
from app.errors import InvalidRequestError
from app.http.admission import require_room
from app.http.conditional import Precondition, PreconditionFailedError, etag
from app.indexing.indexer import Indexer
from app.indexing.paths import check_path
from app.namespaces import Range, only, stored_range, to_stored
from app.pagination import Page
from app.resources import Resources
from app.store import repository
from app.store.changes import Also, Changes
from app.store.errors import (
    InvalidValueError,
    ItemNotFoundError,
    VersionHasNoValueError,
    VersionNotFoundError,
)
from app.store.lifetimes import restart_lifetimes
from app.store.listing import (
    ListedNamespaces,
    NamespaceQuery,
    count_items,
    list_namespaces,
    literal_start,
)
from app.store.merging import merge
from app.store.schemas import (
    DeleteItem,
    ListNamespaces,
    PatchItem,
    PutItem,
    ReadItem,
    ReadVersions,
    RestoreItem,
    Source,
)
from app.store.values import check_json, to_json
from app.store.writes import Address, Delete, Details, Put, Write, Written
from app.usage_counter import Usage

RESERVED_ROOT = "langgraph"
"""LangGraph keeps its own records below this label."""

MAX_ADDRESS_BYTES = 2_500
"""Stored namespace and key together: PostgreSQL indexes rows of up to 2,704 bytes."""

_PATCH_ATTEMPTS = 20
"""A patch is repeated when another writer came first; each round lets one of them through."""


_DETAIL_NAMES = frozenset(field.name for field in fields(Details))


def check_not_reserved(labels: Sequence[str]) -> None:
    """Raise InvalidRequestError for a namespace that clients may not write to."""
    if labels[:1] == [RESERVED_ROOT]:
        raise InvalidRequestError(
            f'namespace begins with "{RESERVED_ROOT}", which is reserved; '
            "choose another first label.",
            field="namespace[0]",
        )


class ItemService:
    """Reads and changes items on behalf of one caller."""

    def __init__(
        self,
        database: Database,
        indexer: Indexer,
        clock: Clock,
        usage: Usage,
        settings: Settings,
    ) -> None:
        self._database = database
        self._indexer = indexer
        self._clock = clock
        self._usage = usage
        self._settings = settings
        self._changes = Changes(database, indexer, clock)

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make the service from a process's resources."""
        indexer = Indexer(resources.index, resources.settings.index_fields)
        return cls(
            resources.database, indexer, resources.clock, resources.usage, resources.settings
        )

    async def get(self, access: Access, query: ReadItem) -> Row | None:
        """Return an item, restarting its lifetime if it has one and that is wanted."""
        address = (access.authorize(query.labels, Verb.READ), query.key)
        now = self._clock.now()
        async with self._database.connection(access.root) as connection:
            if query.as_of is not None:
                return await repository.find_as_of(connection, address, query.as_of)
            row = await repository.find(
                connection, address, now, with_expired=not query.omit_expired
            )
            if row is None:
                return None
            self._usage.note([row])
            if row["ttl"] is None or not self.refreshes(query.refresh_ttl):
                return row
            restarted = await restart_lifetimes(self._database, connection, [address], now)
            return as_refreshed(row, now) if restarted else row

    async def get_many(
        self,
        access: Access,
        wanted: Sequence[Address],
        refreshed: Sequence[Address],
        max_bytes: int = PAGE_BYTES,
    ) -> dict[Address, Row]:
        """Return the items that exist at stored addresses, restarting some lifetimes.

        Items that do not fit into `max_bytes` have no value, and do not count as read.
        """
        now = self._clock.now()
        async with self._database.connection(access.root) as connection:
            require_room()
            rows = await repository.find_fitting(connection, wanted, now, max_bytes)
            fitting = {address: row for address, row in rows.items() if row["fits"]}
            self._usage.note(fitting.values())
            mortal = {a for a in refreshed if a in fitting and fitting[a]["ttl"] is not None}
            if mortal and not await restart_lifetimes(self._database, connection, mortal, now):
                mortal = set()
        return {**rows, **{address: as_refreshed(rows[address], now) for address in mortal}}

    async def put(self, access: Access, body: PutItem, precondition: Precondition) -> str:
        """Write an item's whole next state; return its ETag."""
        check_not_reserved(body.namespace)
        put = await self.prepare_put(access, body)
        written = await self._apply_put(access, replace(put, precondition=precondition))
        return etag(written.version)

    async def prepare_put(self, access: Access, body: PutItem) -> Put:
        """Check an item's next state and bring it into stored form; nothing is embedded yet."""
        address = (access.authorize(body.namespace, Verb.WRITE), body.key)
        _check_size(address)
        for index, path in enumerate(body.index or ()):
            check_path(path, f"index[{index}]")
        return Put(
            address=address,
            value=to_json(body.value, max_bytes=self._settings.max_value_bytes),
            pieces=await self._indexer.cut(body.value, body.index),
            index_paths=body.index,
            details=Details(
                body.importance,
                bool(body.pinned),
                body.valid_from,
                body.valid_to,
                _source_json(body.source),
            ),
            ttl=body.lifetime(self._default_ttl),
        )

    async def patch(self, access: Access, body: PatchItem, precondition: Precondition) -> Row:
        """Merge into an item's value; return the item as it now is."""
        address = (access.authorize(body.namespace, Verb.WRITE), body.key)
        check_json(body.value, "value")
        for _ in range(_PATCH_ATTEMPTS):
            row = await self._present(access, address)
            if not precondition.holds(row["version"]):
                raise PreconditionFailedError(f"the item {body.key!r}", row["version"])
            try:
                put = await self._patched(row, body)
            except InvalidValueError as error:
                if access.allows(body.namespace, Verb.READ):
                    raise
                raise _merged_too_large() from error  # its size would tell that of the old value
            try:
                return _as_row(put, await self._apply_put(access, put))
            except PreconditionFailedError:
                continue  # overtaken since it was read: merge into what is there now
        raise TooManyConflictsError

    async def delete(self, access: Access, body: DeleteItem, precondition: Precondition) -> None:
        """End an item, whether or not it exists."""
        address = (access.authorize(body.namespace, Verb.DELETE), body.key)
        await self.apply(access, [Delete(address, precondition)])

    async def versions(self, access: Access, query: ReadVersions) -> Page[Record]:
        """Return a page of an item's history, newest first; empty when it never existed."""
        address = (access.authorize(query.labels, Verb.READ), query.key)
        async with self._database.connection(access.root) as connection:
            return await repository.find_versions(
                connection, address, before=query.before, limit=query.limit
            )

    async def restore(self, access: Access, body: RestoreItem, precondition: Precondition) -> Row:
        """Make an earlier version present again, as a new version; it never expires."""
        address = (access.authorize(body.namespace, Verb.WRITE), body.key)
        async with self._database.connection(access.root) as connection:
            row = await repository.find_version(connection, address, body.version)
        may_read = access.allows(body.namespace, Verb.READ)
        if row is None or (row["value"] is None and not may_read):
            raise VersionNotFoundError(body.key, body.version)
        if row["value"] is None:
            raise VersionHasNoValueError(body.key, body.version, row["action"])
        index_paths = _index_paths(row)
        put = Put(
            address=address,
            value=row["value"],
            pieces=await self._indexer.cut(json.loads(row["value"]), index_paths),
            index_paths=index_paths,
            details=_details(row),
            action="restore",
            precondition=precondition,
        )
        return _as_row(put, await self._apply_put(access, put))

    def check_listing(self, access: Access, body: ListNamespaces) -> None:
        """Raise ForbiddenError unless the caller may read below the prefix."""
        access.authorize(literal_start(body.prefix or []), Verb.READ)

    async def list_namespaces(
        self, access: Access, body: ListNamespaces, max_bytes: int = PAGE_BYTES
    ) -> ListedNamespaces:
        """Return namespaces in ascending order and, if asked for, how many items each holds."""
        self.check_listing(access, body)
        query = NamespaceQuery(
            root=access.root,
            prefix=body.prefix or [],
            suffix=body.suffix or [],
            max_depth=body.max_depth,
            limit=100 if body.limit is None else body.limit,
            offset=body.offset or 0,
        )
        now = self._clock.now()
        async with self._database.connection(access.root) as connection:
            found, is_cut = await list_namespaces(connection, query, now, max_bytes)
            next_offset = query.offset + len(found) if is_cut and len(found) < query.limit else None
            if not body.counts:
                return ListedNamespaces(found, None, next_offset)
            scopes = [self._counted(access, labels, body.max_depth) for labels in found]
            counts = await count_items(connection, scopes, now)
            return ListedNamespaces(found, counts, next_offset)

    async def apply(
        self, access: Access, writes: Sequence[Write], *, also: Also | None = None
    ) -> dict[Address, Written]:
        """Apply prepared writes, all or none, and what `also` does; return what the puts became."""
        return await self._changes.apply(writes, access, also=also)

    def refreshes(self, refresh_ttl: bool | None) -> bool:
        """Tell whether a read restarts lifetimes: as asked, or as the setting says."""
        return self._settings.refresh_on_read if refresh_ttl is None else refresh_ttl

    @staticmethod
    def _counted(access: Access, labels: list[str], max_depth: int | None) -> Range:
        """Return what a listed namespace stands for: itself, or all below where it was cut."""
        stored = access.root + to_stored(labels)
        is_cut = max_depth is not None and len(labels) == max_depth
        return stored_range(stored) if is_cut else only(stored)

    @property
    def _default_ttl(self) -> timedelta | None:
        minutes = self._settings.default_ttl_minutes
        return None if minutes is None else timedelta(minutes=minutes)

    async def _apply_put(self, access: Access, put: Put) -> Written:
        return (await self.apply(access, [put]))[put.address]

    async def _patched(self, row: Record, body: PatchItem) -> Put:
        value = merge(json.loads(row["value"]), body.value)
        index_paths = _index_paths(row)
        given = {name: getattr(body, name) for name in body.model_fields_set & _DETAIL_NAMES}
        if "source" in given:
            given["source"] = _source_json(body.source)
        if "pinned" in given:
            given["pinned"] = bool(body.pinned)
        return Put(
            address=(row["namespace"], row["key"]),
            value=to_json(value, max_bytes=self._settings.max_value_bytes),
            pieces=await self._indexer.cut(value, index_paths),
            index_paths=index_paths,
            details=replace(_details(row), **given),
            ttl=row["ttl"],
            action="patch",
            precondition=Precondition.at(row["version"]),
        )

    async def _present(self, access: Access, address: Address) -> Record:
        async with self._database.connection(access.root) as connection:
            row = await repository.find(connection, address, self._clock.now())
        if row is None:
            raise ItemNotFoundError(address[1])
        return row


def as_refreshed(row: Row, now: datetime) -> Row:
    """Return an item as it is after its lifetime was restarted; an expired one stays as it is."""
    is_alive = row["expires_at"] > now
    return {**row, "expires_at": now + row["ttl"]} if is_alive else row


def _check_size(address: Address) -> None:
    size = sum(len(part.encode()) for part in address)
    if size > MAX_ADDRESS_BYTES:
        raise InvalidRequestError(
            f"namespace and key together are {size:,} bytes; use at most {MAX_ADDRESS_BYTES:,}.",
            field="namespace",
        )


def _merged_too_large() -> InvalidValueError:
    return InvalidValueError(
        "value is too large once it is merged. Put the whole value, or use another key.",
        field="value",
    )


def _source_json(source: Source | None) -> str | None:
    if source is None:
        return None
    members = source.model_dump(exclude_unset=True)
    check_json(members, "source")
    return json.dumps(members, ensure_ascii=False)


def _details(row: Row) -> Details:
    return Details(
        row["importance"],
        bool(row["pinned"]),
        row["valid_from"],
        row["valid_to"],
        row["source"],
    )


def _index_paths(row: Row) -> list[str] | None:
    stored = row["index_paths"]
    return None if stored is None else [str(path) for path in json.loads(stored)]


def _as_row(put: Put, written: Written) -> Row:
    """Return a put item as it would be read back."""
    namespace, key = put.address
    return {
        "namespace": namespace,
        "key": key,
        "value": put.value,
        **asdict(put.details),
        **asdict(written),
    }
