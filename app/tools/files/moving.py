"""Deleting and renaming files, and directories with all that is in them."""

import json
from collections.abc import Sequence
from functools import partial

from app.auth.access import Access, Verb
from app.db.database import Row
from app.db.optimistic import retry_optimistically
from app.http.conditional import Precondition
from app.store.schemas import MAX_KEY_CHARACTERS, PutItem, Source
from app.store.writes import Address, Delete, Write
from app.tools.base import Bound, ToolError
from app.tools.files.paths import path_of
from app.tools.files.tree import Tree, as_new

MAX_DELETED = 10_000
"""Files in a directory that is deleted; it is one transaction."""

MAX_MOVED = 1_000
MAX_MOVED_BYTES = 2**20
"""In a directory that is renamed: its texts are embedded again, as those of a put are."""


async def delete(tree: Tree, bound: Bound, key: str) -> None:
    """Delete a file, or a directory with all that is in it."""
    access = bound.access
    address = (access.locate(bound.namespace, Verb.DELETE), key)
    if await tree.file(access, address):
        await tree.items.apply(access, [Delete(address)])
        return
    keys = await tree.keys(access, address, MAX_DELETED + 1)
    if not keys:
        raise _missing(address)
    if len(keys) > MAX_DELETED:
        raise ToolError(
            f"Error: {path_of(key)} has more than {MAX_DELETED:,} files; "
            "delete what is in it bit by bit"
        )
    await tree.items.apply(access, [Delete((address[0], below)) for below in keys])


async def rename(tree: Tree, bound: Bound, old: str, new: str) -> None:
    """Move a file, or a directory with all that is in it, to where nothing is."""
    namespace = bound.access.locate(bound.namespace, Verb.WRITE)
    bound.access.locate(bound.namespace, Verb.DELETE)
    if new.startswith(f"{old}/"):
        raise ToolError(f"Error: {path_of(old)} cannot be moved into itself")
    await retry_optimistically(partial(_rename, tree, bound, (namespace, old), (namespace, new)))


async def _rename(tree: Tree, bound: Bound, old: Address, new: Address) -> None:
    file = await tree.file(bound.access, old)
    rows = [file] if file else await _directory(tree, bound.access, old)
    occupied = f"Error: The destination {path_of(new[1])} already exists"
    await tree.require_free(bound.access, new, occupied)
    writes: list[Write] = []
    for row in rows:
        key = new[1] + row["key"].removeprefix(old[1])
        if len(key) > MAX_KEY_CHARACTERS:
            raise ToolError(f"Error: {path_of(key)} would be too long a path")
        put = await tree.items.prepare_put(bound.access, _moved(row, bound.namespace, key))
        unchanged = Precondition.at(row["version"])
        writes += [as_new(put), Delete((old[0], row["key"]), unchanged)]
    await tree.apply(bound.access, writes, new)


async def _directory(tree: Tree, access: Access, address: Address) -> Sequence[Row]:
    """Return all files of a directory that is to be moved."""
    sizes = await tree.sizes(access, address, MAX_MOVED + 1)
    if len(sizes) > MAX_MOVED or sum(size for _, size in sizes) > MAX_MOVED_BYTES:
        raise ToolError(
            f"Error: {path_of(address[1])} has more than {MAX_MOVED:,} files or "
            f"{MAX_MOVED_BYTES:,} bytes; rename what is in it bit by bit"
        )
    rows = await tree.files(access, address, MAX_MOVED)
    if not rows:
        raise _missing(address)
    return rows


def _moved(row: Row, labels: list[str], key: str) -> PutItem:
    """Return an item as it is at another key; its lifetime, if it has one, begins anew."""
    source, paths, ttl = row["source"], row["index_paths"], row["ttl"]
    return PutItem.model_construct(  # of what was checked when it came in
        namespace=labels,
        key=key,
        value=json.loads(row["value"]),
        importance=row["importance"],
        pinned=row["pinned"],
        valid_from=row["valid_from"],
        valid_to=row["valid_to"],
        source=None if source is None else Source.model_validate_json(source),
        index=None if paths is None else json.loads(paths),
        ttl_seconds=None if ttl is None else ttl.total_seconds(),
    )


def _missing(address: Address) -> ToolError:
    return ToolError(f"Error: The path {path_of(address[1])} does not exist")
