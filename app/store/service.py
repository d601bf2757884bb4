"""Reading and changing items on behalf of a caller."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Self

import asyncpg

from app.auth.access import Access, Verb
from app.clock import Clock
from app.config import Settings
from app.db.database import Connection, Database
from app.db.optimistic import TooManyConflictsError
from app.db.pages import PAGE_BYTES
from app.errors import InvalidRequestError
from app.http.admission import require_room
from app.http.conditional import Precondition, PreconditionFailedError
from app.json_values import JsonObject, UnstorableError, check_storable
from app.namespaces import Labels, Range, only, stored_range, to_stored
from app.pagination import Page
from app.resources import Resources
from app.store import repository
from app.store.errors import (
    InvalidValueError,
    ItemNotFoundError,
    VersionHasNoValueError,
    VersionNotFoundError,
)
from app.store.listing import (
    ListedNamespaces,
    NamespaceQuery,
    count_items,
    list_namespaces,
    literal_start,
)
from app.store.repository import FittingItems
from app.store.types import Address, Delete, Item, ItemVersion, Patch, Put, Ttl
from app.store.writer import ItemWriter
from app.usage_counter import Usage

RESERVED_ROOT = "langgraph"
"""LangGraph keeps its own records below this label."""

_PATCH_ATTEMPTS = 20
"""A patch is repeated if another writer came first; each round lets one of them through."""


def check_not_reserved(labels: Sequence[str]) -> None:
    """Raise InvalidRequestError for a namespace that clients may not write to."""
    if labels[:1] == [RESERVED_ROOT]:
        raise InvalidRequestError(
            f'namespace begins with "{RESERVED_ROOT}", which is reserved; '
            "choose another first label.",
            field="namespace[0]",
        )


class ItemService:
    """Reads and changes items on behalf of one caller.

    Addresses are a caller's: their namespaces come from `Access.authorize`.
    """

    def __init__(
        self,
        database: Database,
        writer: ItemWriter,
        clock: Clock,
        usage: Usage,
        settings: Settings,
    ) -> None:
        self._database = database
        self._writer = writer
        self._clock = clock
        self._usage = usage
        self._refresh_on_read = settings.refresh_on_read

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make the service from a process's resources."""
        return cls(
            resources.database,
            ItemWriter.build(resources),
            resources.clock,
            resources.usage,
            resources.settings,
        )

    async def get(
        self,
        access: Access,
        address: Address,
        *,
        as_of: datetime | None = None,
        with_expired: bool = False,
        refresh_ttl: bool | None = None,
    ) -> Item | None:
        """Return an item, and restart its lifetime if `refresh_ttl` or else the setting says so."""
        now = self._clock.now()
        async with self._database.connection(access.root) as connection:
            if as_of is not None:
                return await repository.find_as_of(connection, address, as_of)
            item = await repository.find(connection, address, now, with_expired=with_expired)
            if item is None:
                return None
            self._usage.note([item])
            if not self.refreshes(refresh_ttl):
                return item
            return (await restart_lifetimes(self._database, connection, [item], now))[0]

    async def get_many(
        self,
        access: Access,
        wanted: Sequence[Address],
        refreshed: Collection[Address],
        max_bytes: int = PAGE_BYTES,
    ) -> FittingItems:
        """Return the items that exist at some addresses, restarting the lifetimes of some.

        Items that do not fit into `max_bytes` do not count as read.
        """
        now = self._clock.now()
        async with self._database.connection(access.root) as connection:
            require_room()
            found = await repository.find_fitting(connection, wanted, now, max_bytes)
            self._usage.note(found.items.values())
            mortal = [found.items[a] for a in set(refreshed) & found.items.keys()]
            restarted = await restart_lifetimes(self._database, connection, mortal, now)
        return replace(found, items=found.items | {item.address: item for item in restarted})

    async def put(self, access: Access, put: Put) -> int:
        """Write an item's whole next state; return its version."""
        check_not_reserved(access.relative(put.address.namespace))
        prepared = await self._writer.prepare(access, put)
        return (await self._writer.write(access, [prepared]))[put.address].version

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
                continue  # overtaken since it was read: merge into what is there now
        raise TooManyConflictsError

    async def delete(self, access: Access, delete: Delete) -> None:
        """End an item, whether or not it exists."""
        await self._writer.write(access, [delete])

    async def versions(
        self, access: Access, address: Address, *, before: int | None = None, limit: int = 100
    ) -> Page[ItemVersion]:
        """Return a page of an item's history, newest first; empty if it never existed."""
        async with self._database.connection(access.root) as connection:
            return await repository.find_versions(connection, address, before=before, limit=limit)

    async def restore(
        self, access: Access, address: Address, version: int, precondition: Precondition
    ) -> Item:
        """Make an earlier version present again, as a new version; it never expires."""
        access.require(address.namespace, Verb.WRITE)
        async with self._database.connection(access.root) as connection:
            past = await repository.find_version(connection, address, version)
        may_read = access.allows(access.relative(address.namespace), Verb.READ)
        if past is None or (past.value is None and not may_read):
            raise VersionNotFoundError(address.key, version)
        if past.value is None:
            raise VersionHasNoValueError(address.key, version, past.action)
        return await self._replace(access, Put.restoring(past, precondition, Ttl.NONE))

    def check_listing(self, access: Access, query: NamespaceQuery) -> None:
        """Raise ForbiddenError unless the caller may read below the prefix."""
        access.authorize(literal_start(query.prefix), Verb.READ)

    async def list_namespaces(
        self, access: Access, query: NamespaceQuery, max_bytes: int = PAGE_BYTES
    ) -> ListedNamespaces:
        """Return namespaces in ascending order and, if requested, how many items each holds."""
        self.check_listing(access, query)
        now = self._clock.now()
        async with self._database.connection(access.root) as connection:
            found, is_cut = await list_namespaces(connection, access.root, query, now, max_bytes)
            next_offset = query.offset + len(found) if is_cut and len(found) < query.limit else None
            if not query.with_counts:
                return ListedNamespaces(found, None, next_offset)
            scopes = [_counted(access, labels, query.max_depth) for labels in found]
            counts = await count_items(connection, scopes, now)
            return ListedNamespaces(found, counts, next_offset)

    def refreshes(self, refresh_ttl: bool | None) -> bool:
        """Return whether a read restarts lifetimes: as requested, or else as the setting says."""
        return self._refresh_on_read if refresh_ttl is None else refresh_ttl

    async def _replace(self, access: Access, put: Put) -> Item:
        prepared = await self._writer.prepare(access, put)
        return prepared.to_item((await self._writer.write(access, [prepared]))[put.address])

    async def _present(self, access: Access, address: Address) -> Item:
        async with self._database.connection(access.root) as connection:
            item = await repository.find(connection, address, self._clock.now())
        if item is None:
            raise ItemNotFoundError(address.key)
        return item


async def restart_lifetimes(
    database: Database, connection: Connection, items: Sequence[Item], now: datetime
) -> list[Item]:
    """Restart the lifetimes of those items that have one; return all as they are afterwards.

    A full disk prevents that, but must not fail the read.
    """
    mortal = [item.address for item in items if item.ttl is not None]
    if not mortal or database.disk.refuses_writes:
        return list(items)
    try:
        await repository.refresh(connection, mortal, now)
    except asyncpg.DiskFullError:
        database.disk.report_full()
        return list(items)
    return [_refreshed(item, now) for item in items]


def _refreshed(item: Item, now: datetime) -> Item:
    if item.ttl is None or item.expires_at is None or item.expires_at <= now:
        return item
    return replace(item, expires_at=now + item.ttl)


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


def _counted(access: Access, labels: Labels, max_depth: int | None) -> Range:
    """Return what a listed namespace represents: itself, or everything below if it was cut."""
    stored = to_stored(labels, access.root)
    is_cut = max_depth is not None and len(labels) == max_depth
    return stored_range(stored) if is_cut else only(stored)
