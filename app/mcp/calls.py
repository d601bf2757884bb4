"""What the tools do."""

import json
from typing import Any
from uuid import uuid4

from app.auth.access import Access
from app.db import Row
from app.mcp.addresses import memory_id, read_address
from app.mcp.caller import Caller
from app.mcp.errors import MemoryNotFoundError, ToolError
from app.mcp.schemas import (
    DEFAULT_LIMIT,
    MAX_NAMESPACES,
    Changed,
    ForgetMemory,
    ListNamespaces,
    Memories,
    Memory,
    Namespace,
    Namespaces,
    Remember,
    SearchMemories,
    UpdateMemory,
)
from app.search.schemas import SearchItems
from app.search.service import SearchService
from app.store import schemas as store
from app.store.errors import PreconditionFailedError
from app.store.preconditions import UNCONDITIONAL, Precondition, etag
from app.store.service import ItemService

_THERE = Precondition(if_match="*")


async def search_memories(caller: Caller, asked: SearchMemories) -> Memories:
    """Find memories by meaning and words, or list the newest."""
    prefix = caller.default_namespace if asked.namespace is None else asked.namespace
    body = SearchItems(
        namespace_prefix=list(prefix),
        query=asked.query,
        filter=asked.filter,
        limit=asked.limit or DEFAULT_LIMIT,
    )
    found = await SearchService.build(caller.resources).search(caller.confined, body)
    return Memories(
        memories=[_memory(result.row, result.score, caller.confined) for result in found.results]
    )


async def remember(caller: Caller, asked: Remember) -> Changed:
    """Store a text as a new memory."""
    labels = caller.default_namespace if asked.namespace is None else asked.namespace
    key = uuid4().hex
    body = store.PutItem(
        namespace=caller.place(labels),
        key=key,
        value={"content": asked.text},
        importance=asked.importance,
    )
    await ItemService.build(caller.resources).put(caller.access, body, UNCONDITIONAL)
    return Changed(id=memory_id(labels, key))


async def update_memory(caller: Caller, asked: UpdateMemory) -> Changed:
    """Replace a memory's text; what else its value holds stays."""
    address = read_address(asked.id)
    items = ItemService.build(caller.resources)
    row = await items.get(caller.confined, address)
    if row is None:
        raise MemoryNotFoundError(asked.id)
    changed: dict[str, Any] = {
        "namespace": caller.place(address.labels),
        "key": address.key,
        "value": _with_text(json.loads(row["value"]), asked.text),
    }
    if asked.importance is not None:
        changed["importance"] = asked.importance
    body = store.PatchItem.model_validate(changed)
    try:
        await items.patch(caller.access, body, Precondition(if_match=etag(row["version"])))
    except PreconditionFailedError as error:
        raise ToolError(
            f"The memory {asked.id} was changed at this moment by somebody else; nothing was "
            "done. Search for it again before you change it."
        ) from error
    return Changed(id=asked.id)


async def forget_memory(caller: Caller, asked: ForgetMemory) -> Changed:
    """Delete a memory."""
    address = read_address(asked.id)
    body = store.DeleteItem(namespace=address.labels, key=address.key)
    try:
        await ItemService.build(caller.resources).delete(caller.confined, body, _THERE)
    except PreconditionFailedError as error:
        raise MemoryNotFoundError(asked.id) from error
    return Changed(id=asked.id)


async def list_namespaces(caller: Caller, asked: ListNamespaces) -> Namespaces:
    """List the places that hold memories, as far as the caller may read them."""
    prefixes = caller.readable() if asked.prefix is None else [asked.prefix]
    listed: list[Namespace] = []
    for prefix in prefixes:
        body = store.ListNamespaces(
            prefix=prefix, limit=MAX_NAMESPACES + 1 - len(listed), counts=True
        )
        items = ItemService.build(caller.resources)
        found, counts = await items.list_namespaces(caller.confined, body)
        listed += [
            Namespace(namespace=labels, memories=count)
            for labels, count in zip(found, counts or (), strict=True)
        ]
    return Namespaces(namespaces=listed[:MAX_NAMESPACES], complete=len(listed) <= MAX_NAMESPACES)


def _memory(row: Row, score: float | None, access: Access) -> Memory:
    labels = access.relative(row["namespace"])
    return Memory(
        id=memory_id(labels, row["key"]),
        namespace=labels,
        value=json.loads(row["value"]),
        score=score,
        importance=row["importance"],
        updated_at=row["updated_at"],
    )


def _with_text(value: dict[str, Any], text: str) -> dict[str, Any]:
    """Return the merge patch that replaces a memory's text; raises ToolError where it has none."""
    content = value.get("content")
    if isinstance(content, str):
        return {"content": text}
    if isinstance(content, dict) and isinstance(content.get("content"), str):
        return {"content": {"content": text}}  # a manager's memory of the kind `memory`
    if isinstance(value.get("text"), str):
        return {"text": text}
    raise ToolError(
        "This memory is no text but a record with members of its own, which this tool cannot "
        "change. Forget it and remember what is right, or leave it."
    )
