"""From changes of items to the writes that carry them out, checked as a client's would be."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Self

from app.auth.access import Access, Verb
from app.changes.repository import ChangeState, ItemChange
from app.clock import Clock
from app.db.database import Connection, Database
from app.errors import InvalidRequestError
from app.http.conditional import Precondition, PreconditionFailedError
from app.resources import Resources
from app.store import repository
from app.store.types import (
    Address,
    Delete,
    Item,
    ItemMetadata,
    Put,
    PutResult,
    Ttl,
    Write,
    source_text,
)
from app.store.writer import ItemWriter

_UNSAFE = "Another change of the job cannot be stored, and this one may rest on it."

_SAID_IN = ("thread_id", "position", "message_ids")


@dataclass(slots=True)
class Prepared:
    """Changes with the writes that carry them out, and those that cannot be stored."""

    changes: list[ItemChange] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)
    refused: list[tuple[ItemChange, str]] = field(default_factory=list)


class WritePlanner:
    """Prepares writes on behalf of one caller."""

    def __init__(self, database: Database, writer: ItemWriter, clock: Clock) -> None:
        self._database = database
        self._writer = writer
        self._clock = clock

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make it from a process's resources."""
        return cls(resources.database, ItemWriter.build(resources), resources.clock)

    async def prepare(self, access: Access, changes: Sequence[ItemChange]) -> Prepared:
        """Bring changes into the form that the store takes; the items are as they were seen.

        Raises PreconditionFailedError where one was changed since, and ForbiddenError.
        """
        items = await self.present(access, [change.address for change in changes])
        prepared = Prepared()
        for wanted in changes:
            item = items.get(wanted.address)
            version = item.version if item else None
            if version != wanted.version_before:
                raise PreconditionFailedError(wanted.address.description, version)
            change = _continued(wanted, item) if item else wanted
            try:
                write = await self._write(access, change, item)
            except InvalidRequestError as error:
                prepared.refused.append((change, error.detail))
            else:
                prepared.changes.append(change)
                prepared.writes.append(write)
        return _without_deletes(prepared) if prepared.refused else prepared

    async def present(self, access: Access, addresses: Iterable[Address]) -> dict[Address, Item]:
        """Return the items as they are now."""
        async with self._database.connection(access.root) as connection:
            return await repository.find_many(connection, addresses, self._clock.now())

    async def _write(self, access: Access, change: ItemChange, item: Item | None) -> Write:
        if change.value is None:
            access.require(change.namespace, Verb.DELETE)
            return Delete(change.address, Precondition.at(change.version_before))
        value = json.loads(change.value)
        metadata = _metadata(change, item)
        if item is not None:
            put = Put.replacing(item, value=value, metadata=metadata)
        else:
            put = Put(
                change.address,
                value,
                metadata,
                ttl=duration(change.ttl_seconds) or Ttl.DEFAULT,
                precondition=Precondition.at(change.version_before),
            )
        return await self._writer.prepare(access, put)


async def check_versions(
    connection: Connection, versions: Mapping[Address, int | None], now: datetime
) -> None:
    """Raise PreconditionFailedError unless items are, and stay until the end, at their versions."""
    locked = await repository.lock(connection, versions, now)
    for address, version in versions.items():
        found = locked[address].version if address in locked else None
        if found != version:
            raise PreconditionFailedError(address.description, found)


def _without_deletes(prepared: Prepared) -> Prepared:
    """Refuse the deletes, too: what they would end may have been meant to live on elsewhere."""
    left = Prepared(refused=prepared.refused)
    for change, write in zip(prepared.changes, prepared.writes, strict=True):
        if change.action == "delete":
            left.refused.append((change, _UNSAFE))
        else:
            left.changes.append(change)
            left.writes.append(write)
    return left


def as_applied(change: ItemChange, written: Mapping[Address, PutResult]) -> ItemChange:
    """Return a change that was written, with the version it led to."""
    if change.action == "delete":
        after = (change.version_before or 0) + 1  # the end is a version, too
    else:
        after = written[change.address].version
    return replace(change, state=ChangeState.APPLIED, version_after=after)


def _continued(change: ItemChange, item: Item) -> ItemChange:
    """Return a change of an item with what the item keeps: its lifetime, and where it is from.

    An update that names no message, as of a consolidation, came from none: the words are still
    those of the messages before.
    """
    source = change.source
    if source and not source.get("message_ids") and item.metadata.source is not None:
        before = json.loads(item.metadata.source)
        source = {**source, **{name: before[name] for name in _SAID_IN if name in before}}
    return replace(change, ttl_seconds=_seconds(item.ttl), source=source)


def _metadata(change: ItemChange, item: Item | None) -> ItemMetadata:
    """Return the metadata that a change writes; the rest stays as it is."""
    before = item.metadata if item else ItemMetadata()
    valid_to = before.valid_to
    if valid_to and change.valid_from and change.valid_from > valid_to:
        valid_to = None  # it was the end of what held before
    return replace(
        before,
        importance=change.importance,
        valid_from=change.valid_from,
        valid_to=valid_to,
        source=source_text(change.source or {}),
    )


def duration(seconds: float | None) -> timedelta | None:
    """Return a lifetime given in seconds."""
    return None if seconds is None else timedelta(seconds=seconds)


def _seconds(ttl: timedelta | None) -> float | None:
    return None if ttl is None else ttl.total_seconds()
