"""The items of a namespace as a tree: a directory is there while files are in it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Self

from app.auth.access import Access
from app.clock import Clock
from app.db.database import Connection, Database, Row
from app.db.optimistic import OvertakenError
from app.http.conditional import Precondition, PreconditionFailedError
from app.resources import Resources
from app.store.service import ItemService
from app.store.writes import Address, Put, Write, Written
from app.tools.base import ToolError
from app.tools.files import repository
from app.tools.files.paths import lineage, path_of


class Tree:
    """Looks at files and directories, and changes them if they are still as they were seen."""

    def __init__(self, database: Database, items: ItemService, clock: Clock) -> None:
        self.items = items
        self._database = database
        self._clock = clock

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make it from a process's resources."""
        return cls(resources.database, ItemService.build(resources), resources.clock)

    async def file(self, access: Access, address: Address, *, refresh: bool = False) -> Row | None:
        """Return the item of a file; reading it may restart its lifetime, as with any item."""
        refreshed = [address] if refresh and self.items.refreshes(None) else []
        return (await self.items.get_many(access, [address], refreshed)).get(address)

    async def keys(self, access: Access, directory: Address, limit: int) -> list[str]:
        """Return the first keys in a directory and below."""
        async with self._database.connection(access.root) as connection:
            return await repository.keys_below(connection, directory, self._clock.now(), limit)

    async def sizes(self, access: Access, directory: Address, limit: int) -> list[tuple[str, int]]:
        """Return such keys, each with how many bytes its text has."""
        async with self._database.connection(access.root) as connection:
            return await repository.sizes_below(connection, directory, self._clock.now(), limit)

    async def files(self, access: Access, directory: Address, limit: int) -> Sequence[Row]:
        """Return the first items in a directory and below."""
        async with self._database.connection(access.root) as connection:
            return await repository.files_below(connection, directory, self._clock.now(), limit)

    async def require_free(self, access: Access, address: Address, occupied: str) -> None:
        """Raise ToolError, saying `occupied`, unless a file or directory could be made there."""
        namespace, key = address
        async with self._database.connection(access.root) as connection:
            found = await repository.find_obstacle(
                connection, namespace, lineage(key), self._clock.now()
            )
        if found is not None and key.startswith(f"{found}/"):
            raise ToolError(f"Error: {path_of(found)} is a file; there can be nothing below it")
        if found is not None:
            raise ToolError(occupied)

    async def apply(self, access: Access, writes: Sequence[Write], new: Address) -> None:
        """Make changes in one transaction, in which a file or directory becomes new at `new`.

        Raises OvertakenError, with nothing changed, if it no longer is or a precondition fails.
        """

        async def check(connection: Connection, written: Mapping[Address, Written]) -> None:
            keys = [key for _, key in written]
            if await repository.find_obstacle(
                connection, new[0], lineage(new[1]), self._clock.now(), besides=keys
            ):
                raise OvertakenError

        try:
            await self.items.apply(access, writes, also=check)
        except PreconditionFailedError as error:
            raise OvertakenError from error


def as_new(put: Put) -> Put:
    """Return a put that takes nothing's place."""
    return replace(put, precondition=Precondition(if_none_match="*"))


def text_of(row: Row) -> str:
    """Return what a file shows: its text, or the JSON of a value that holds none."""
    value = json.loads(row["value"])
    text = value.get("content")
    return text if isinstance(text, str) else json.dumps(value, ensure_ascii=False, indent=2)
