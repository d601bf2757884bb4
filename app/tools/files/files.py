"""Viewing, creating and editing files."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

from app.auth.access import Verb
from app.db.optimistic import OvertakenError, retry_optimistically
from app.http.conditional import Precondition, PreconditionFailedError
from app.store.errors import ItemNotFoundError
from app.store.schemas import PatchItem, PutItem, Source
from app.store.writes import Address
from app.tools.base import Bound, ToolError
from app.tools.files.definition import NAME
from app.tools.files.listing import MAX_FILES, listing
from app.tools.files.paths import path_of
from app.tools.files.texts import check_length, shown
from app.tools.files.tree import Tree, as_new, text_of

Edit: TypeAlias = Callable[[str], tuple[str, str]]
"""From a file's text to its next one, and what to tell the model of it."""


async def view(tree: Tree, bound: Bound, key: str, view_range: Sequence[int] | None) -> str:
    """Return a file with line numbers, or what is in a directory."""
    address = (bound.access.locate(bound.namespace, Verb.READ), key)
    row = await tree.file(bound.access, address, refresh=True) if key else None
    if row is not None:
        return shown(path_of(key), text_of(row), view_range)
    files = await tree.sizes(bound.access, address, MAX_FILES + 1)
    if key and not files:
        raise ToolError(f"The path {path_of(key)} does not exist. Please provide a valid path.")
    return listing(key, files[:MAX_FILES], is_cut=len(files) > MAX_FILES)


async def create(tree: Tree, bound: Bound, key: str, text: str) -> None:
    """Write a file where nothing is; the directories it is in need not be there."""
    namespace = bound.access.locate(bound.namespace, Verb.WRITE)
    check_length(path_of(key), text)
    await retry_optimistically(partial(_create, tree, bound, (namespace, key), text))


async def edit(tree: Tree, bound: Bound, key: str, change: Edit) -> str:
    """Change a file's text, as it is when it is written; return what the change tells."""
    address = (bound.access.locate(bound.namespace, Verb.WRITE), key)
    return await retry_optimistically(partial(_edit, tree, bound, address, change))


async def _create(tree: Tree, bound: Bound, address: Address, text: str) -> None:
    key = address[1]
    await tree.require_free(bound.access, address, f"Error: File {path_of(key)} already exists")
    manager = {} if bound.manager is None else {"manager": bound.manager}
    members: dict[str, Any] = {"source": Source.model_validate({"tool": NAME} | manager)}
    if bound.ttl_seconds is not None:
        members["ttl_seconds"] = bound.ttl_seconds
    body = PutItem.model_construct(  # of what was checked when it came in
        namespace=bound.namespace, key=key, value={"content": text}, **members
    )
    put = await tree.items.prepare_put(bound.access, body)
    await tree.apply(bound.access, [as_new(put)], address)


async def _edit(tree: Tree, bound: Bound, address: Address, change: Edit) -> str:
    path = path_of(address[1])
    row = await tree.file(bound.access, address)
    if row is None:
        raise ToolError(f"Error: The path {path} does not exist. Please provide a valid path.")
    value = json.loads(row["value"])
    if not isinstance(value.get("content"), str):
        raise ToolError(f"Error: {path} holds data, not text; it can be viewed, but not edited.")
    text, told = change(value["content"])
    check_length(path, text)
    body = PatchItem.model_construct(
        namespace=bound.namespace, key=address[1], value={"content": text}
    )
    try:
        await tree.items.patch(bound.access, body, Precondition.at(row["version"]))
    except (PreconditionFailedError, ItemNotFoundError) as error:
        raise OvertakenError from error
    return told
