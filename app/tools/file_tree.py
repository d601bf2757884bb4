"""The items of a namespace as a tree of files; a directory exists while files are in it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Self, TypeAlias

from app.auth.access import Access, Verb
from app.clock import Clock
from app.db.database import Database, OvertakenError, retry_optimistically
from app.http.headers import ABSENT, Precondition, PreconditionFailedError
from app.resources import Resources
from app.store.schemas import MAX_KEY_CHARACTERS
from app.store.service import ItemService
from app.store.types import (
    Address,
    Delete,
    Item,
    ItemMetadata,
    ItemNotFoundError,
    Patch,
    Put,
    Write,
)
from app.store.writer import ItemWriter
from app.tools import file_repository
from app.tools.file_text import MAX_FILES, check_length, lineage, list_directory, path_of, show_file
from app.tools.tool import ToolContext, ToolError

MAX_DELETED = 10_000
"""Maximum files in a directory to delete; the deletion is one transaction."""

MAX_MOVED = 1_000
MAX_MOVED_BYTES = 2**20
"""Limits of a directory to rename: its texts are embedded again, like those of a put."""

_CONFLICTS = (OvertakenError, PreconditionFailedError)

Edit: TypeAlias = Callable[[str], tuple[str, str]]
"""From a file's text to its next text, and the result for the model."""


class FileTree:
    """Reads files and directories, and changes them unless they have changed since."""

    def __init__(
        self,
        database: Database,
        items: ItemService,
        writer: ItemWriter,
        clock: Clock,
        tool: str,
    ) -> None:
        self._database = database
        self._items = items
        self._writer = writer
        self._clock = clock
        self._tool = tool

    @classmethod
    def build(cls, resources: Resources, tool: str) -> Self:
        """Make it from a process's resources; `tool` becomes the source of new files."""
        return cls(
            resources.database,
            ItemService.build(resources),
            ItemWriter.build(resources),
            resources.clock,
            tool,
        )

    async def view(self, context: ToolContext, key: str, view_range: Sequence[int] | None) -> str:
        """Return a file with line numbers, or the listing of a directory."""
        address = Address(context.access.authorize(context.namespace, Verb.READ), key)
        item = await self._file(context.access, address, refresh=True) if key else None
        if item is not None:
            return show_file(path_of(key), text_of(item), view_range)
        files = await self._sizes(context.access, address, MAX_FILES + 1)
        if key and not files:
            raise ToolError(f"The path {path_of(key)} does not exist. Please provide a valid path.")
        return list_directory(key, files[:MAX_FILES], is_cut=len(files) > MAX_FILES)

    async def create(self, context: ToolContext, key: str, text: str) -> None:
        """Create a file at a free path; its directories need not exist."""
        namespace = context.access.authorize(context.namespace, Verb.WRITE)
        check_length(path_of(key), text)
        address = Address(namespace, key)
        await retry_optimistically(partial(self._create, context, address, text), on=_CONFLICTS)

    async def edit(self, context: ToolContext, key: str, edit: Edit) -> str:
        """Change a file's current text; return the edit's result."""
        address = Address(context.access.authorize(context.namespace, Verb.WRITE), key)
        return await retry_optimistically(
            partial(self._edit, context, address, edit), on=_CONFLICTS
        )

    async def delete(self, context: ToolContext, key: str) -> None:
        """Delete a file, or a directory with everything in it."""
        access = context.access
        address = Address(access.authorize(context.namespace, Verb.DELETE), key)
        if await self._file(access, address):
            await self._writer.write(access, [Delete(address)])
            return
        async with self._database.connection(access.root) as connection:
            keys = await file_repository.keys_below(
                connection, address, self._clock.now(), MAX_DELETED + 1
            )
        if not keys:
            raise _missing(key)
        if len(keys) > MAX_DELETED:
            raise ToolError(
                f"Error: {path_of(key)} has more than {MAX_DELETED:,} files; "
                "delete what is in it bit by bit"
            )
        deletes = [Delete(Address(address.namespace, below)) for below in keys]
        await self._writer.write(access, deletes)

    async def rename(self, context: ToolContext, old: str, new: str) -> None:
        """Move a file, or a directory with everything in it, to a free path."""
        namespace = context.access.authorize(context.namespace, Verb.WRITE)
        context.access.authorize(context.namespace, Verb.DELETE)
        if new.startswith(f"{old}/"):
            raise ToolError(f"Error: {path_of(old)} cannot be moved into itself")
        addresses = Address(namespace, old), Address(namespace, new)
        await retry_optimistically(partial(self._rename, context, *addresses), on=_CONFLICTS)

    async def _create(self, context: ToolContext, address: Address, text: str) -> None:
        key = address.key
        await self._require_free(
            context.access, address, f"Error: File {path_of(key)} already exists"
        )
        put = Put(
            address,
            {"content": text},
            ItemMetadata(source=context.source(self._tool)),
            ttl=context.ttl,
            precondition=ABSENT,
        )
        prepared = await self._writer.prepare(context.access, put)
        await self._apply(context.access, [prepared], address)

    async def _edit(self, context: ToolContext, address: Address, edit: Edit) -> str:
        path = path_of(address.key)
        item = await self._file(context.access, address)
        if item is None:
            raise ToolError(f"Error: The path {path} does not exist. Please provide a valid path.")
        value = item.parse_value()
        if not isinstance(value.get("content"), str):
            raise ToolError(
                f"Error: {path} holds data, not text; it can be viewed, but not edited."
            )
        text, result = edit(value["content"])
        check_length(path, text)
        patch = Patch(address, {"content": text}, precondition=Precondition.at(item.version))
        try:
            await self._writer.patch(context.access, patch)
        except ItemNotFoundError as error:
            raise OvertakenError from error
        return result

    async def _rename(self, context: ToolContext, old: Address, new: Address) -> None:
        file = await self._file(context.access, old)
        items = [file] if file else await self._files_to_move(context.access, old)
        occupied = f"Error: The destination {path_of(new.key)} already exists"
        await self._require_free(context.access, new, occupied)
        writes: list[Write] = []
        for item in items:
            key = new.key + item.address.key.removeprefix(old.key)
            if len(key) > MAX_KEY_CHARACTERS:
                raise ToolError(f"Error: {path_of(key)} would be too long a path")
            put = replace(
                Put.replacing(item), address=Address(new.namespace, key), precondition=ABSENT
            )
            writes.append(await self._writer.prepare(context.access, put))
            writes.append(Delete(item.address, Precondition.at(item.version)))
        await self._apply(context.access, writes, new)

    async def _files_to_move(self, access: Access, directory: Address) -> list[Item]:
        sizes = await self._sizes(access, directory, MAX_MOVED + 1)
        if len(sizes) > MAX_MOVED or sum(size for _, size in sizes) > MAX_MOVED_BYTES:
            raise ToolError(
                f"Error: {path_of(directory.key)} has more than {MAX_MOVED:,} files or "
                f"{MAX_MOVED_BYTES:,} bytes; rename what is in it bit by bit"
            )
        async with self._database.connection(access.root) as connection:
            now = self._clock.now()
            items = await file_repository.files_below(connection, directory, now, MAX_MOVED)
        if not items:
            raise _missing(directory.key)
        return items

    async def _file(
        self, access: Access, address: Address, *, refresh: bool = False
    ) -> Item | None:
        """Return a file's item; reading it may restart its lifetime, as for any item."""
        refreshed = [address] if refresh and self._items.refreshes(None) else []
        return (await self._items.get_many(access, [address], refreshed)).items.get(address)

    async def _sizes(self, access: Access, directory: Address, limit: int) -> list[tuple[str, int]]:
        """Return the first keys in a directory and below, with the bytes of their texts."""
        async with self._database.connection(access.root) as connection:
            return await file_repository.sizes_below(
                connection, directory, self._clock.now(), limit
            )

    async def _require_free(self, access: Access, address: Address, occupied: str) -> None:
        """Raise ToolError, with the message `occupied`, unless a path is free."""
        namespace, key = address
        async with self._database.connection(access.root) as connection:
            found = await file_repository.find_obstacle(
                connection, namespace, lineage(key), self._clock.now()
            )
        if found is not None and key.startswith(f"{found}/"):
            raise ToolError(f"Error: {path_of(found)} is a file; there can be nothing below it")
        if found is not None:
            raise ToolError(occupied)

    async def _apply(self, access: Access, writes: Sequence[Write], new: Address) -> None:
        """Apply writes that create a file or directory at `new`, in one transaction.

        Raises OvertakenError if the path is no longer free, and PreconditionFailedError.
        """
        async for attempt in self._writer.attempts(access, writes):
            async with attempt.transaction() as connection:
                keys = [address.key for address in await attempt.write(connection)]
                if await file_repository.find_obstacle(
                    connection, new.namespace, lineage(new.key), self._clock.now(), besides=keys
                ):
                    raise OvertakenError


def text_of(item: Item) -> str:
    """Return the text that a file shows: its content, or its value as JSON if it has no text."""
    value = item.parse_value()
    text = value.get("content")
    return text if isinstance(text, str) else json.dumps(value, ensure_ascii=False, indent=2)


def _missing(key: str) -> ToolError:
    return ToolError(f"Error: The path {path_of(key)} does not exist")
