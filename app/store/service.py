"""Reading items, their history, and their namespaces on behalf of a caller."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Self

import asyncpg

from app.auth.access import Access, Verb
from app.clock import Clock
from app.config import Settings
from app.db.database import Connection, Database
from app.db.pages import PAGE_BYTES, Page
from app.http.request_context import require_room
from app.namespaces import Labels, Range, only, stored_range, to_stored
from app.resources import Resources
from app.store import history_repository, repository
from app.store.namespace_repository import (
    ListedNamespaces,
    NamespaceQuery,
    count_items,
    list_namespaces,
    literal_start,
)
from app.store.repository import FittingItems
from app.store.types import Address, Item, ItemVersion
from app.usage_counter import UsageCounter


class ItemService:
    """Reads items on behalf of one caller, who was authorized for their addresses."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        usage: UsageCounter,
        settings: Settings,
    ) -> None:
        self._database = database
        self._clock = clock
        self._usage = usage
        self._refresh_on_read = settings.refresh_on_read

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make the service from a process's resources."""
        return cls(
            resources.database,
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
                return await history_repository.find_as_of(connection, address, as_of)
            item = await repository.find(connection, address, now, with_expired=with_expired)
            if item is None:
                return None
            self._usage.count([item])
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
            self._usage.count(found.items.values())
            mortal = [found.items[a] for a in set(refreshed) & found.items.keys()]
            restarted = await restart_lifetimes(self._database, connection, mortal, now)
        return replace(found, items=found.items | {item.address: item for item in restarted})

    async def versions(
        self, access: Access, address: Address, *, before: int | None = None, limit: int = 100
    ) -> Page[ItemVersion]:
        """Return a page of an item's history, newest first; empty if it never existed."""
        async with self._database.connection(access.root) as connection:
            return await history_repository.find_versions(
                connection, address, before=before, limit=limit
            )

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


def _counted(access: Access, labels: Labels, max_depth: int | None) -> Range:
    """Return the namespaces that a listed one represents: itself, or all below if it was cut."""
    stored = to_stored(labels, access.root)
    is_cut = max_depth is not None and len(labels) == max_depth
    return stored_range(stored) if is_cut else only(stored)
