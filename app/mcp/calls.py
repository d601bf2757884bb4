"""What the tools do."""

import json
from typing import Any
from uuid import uuid4

from app.auth.access import Access, Verb
from app.db.database import Row
from app.db.optimistic import OvertakenError, retry_optimistically
from app.db.pages import TOOL_BYTES
from app.http.conditional import PRESENT, UNCONDITIONAL, Precondition, PreconditionFailedError
from app.mcp.addresses import memory_id, read_address
from app.mcp.caller import Caller
from app.mcp.errors import MemoryNotFoundError
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
from app.search.plan import SearchQuery
from app.search.service import SearchService
from app.store import schemas as store
from app.store.errors import ItemNotFoundError
from app.store.service import ItemService
from app.tools.managing.contents import next_value


async def search_memories(caller: Caller, asked: SearchMemories) -> Memories:
    """Find memories by meaning and words, or list the newest."""
    prefix = caller.default_namespace if asked.namespace is None else asked.namespace
    query = SearchQuery(
        namespace=list(prefix),
        text=asked.query,
        filter=asked.filter,
        limit=asked.limit or DEFAULT_LIMIT,
    )
    search = SearchService.build(caller.resources)
    page = await search.search(caller.confined, query, max_bytes=TOOL_BYTES)
    return Memories(memories=[_memory(hit.row, hit.score, caller.confined) for hit in page.hits])


async def remember(caller: Caller, asked: Remember) -> Changed:
    """Store a text as a new memory."""
    labels = caller.default_namespace if asked.namespace is None else asked.namespace
    key = uuid4().hex
    body = store.PutItem(
        namespace=caller.place(labels),
        key=key,
        value={"content": asked.text},
        importance=asked.importance,
        source=_source("remember"),
    )
    await ItemService.build(caller.resources).put(caller.access, body, UNCONDITIONAL)
    return Changed(id=memory_id(labels, key))


async def update_memory(caller: Caller, asked: UpdateMemory) -> Changed:
    """Replace a memory's text; what else its value holds stays."""
    address = read_address(asked.id)
    items = ItemService.build(caller.resources)
    details: dict[str, Any] = {"source": _source("update_memory")}
    if asked.importance is not None:
        details["importance"] = asked.importance

    async def attempt() -> None:
        row = await items.get(caller.confined, address)
        if row is None:
            raise MemoryNotFoundError(asked.id)
        value = json.loads(row["value"])
        changed = next_value(asked.id, value, None, asked.text)
        body = store.PatchItem(
            namespace=caller.place(address.labels),
            key=address.key,
            value={name: part for name, part in changed.items() if part != value[name]},
            **details,
        )
        try:
            await items.patch(caller.access, body, Precondition.at(row["version"]))
        except PreconditionFailedError as error:
            raise OvertakenError from error
        except ItemNotFoundError as error:
            raise MemoryNotFoundError(asked.id) from error

    await retry_optimistically(attempt)
    return Changed(id=asked.id)


async def forget_memory(caller: Caller, asked: ForgetMemory) -> Changed:
    """Delete a memory."""
    address = read_address(asked.id)
    body = store.DeleteItem(namespace=address.labels, key=address.key)
    # Without `read`, nothing tells the caller whether the memory was there.
    precondition = PRESENT if caller.confined.allows(address.labels, Verb.READ) else UNCONDITIONAL
    try:
        await ItemService.build(caller.resources).delete(caller.confined, body, precondition)
    except PreconditionFailedError as error:
        raise MemoryNotFoundError(asked.id) from error
    return Changed(id=asked.id)


async def list_namespaces(caller: Caller, asked: ListNamespaces) -> Namespaces:
    """List the places that hold memories, as far as the caller may read them."""
    prefixes = caller.readable() if asked.prefix is None else [asked.prefix]
    listed: list[Namespace] = []
    complete = True
    for prefix in prefixes:
        body = store.ListNamespaces(
            prefix=prefix, limit=MAX_NAMESPACES + 1 - len(listed), counts=True
        )
        items = ItemService.build(caller.resources)
        found = await items.list_namespaces(caller.confined, body, TOOL_BYTES)
        complete = complete and found.next_offset is None
        listed += [
            Namespace(namespace=labels, memories=count)
            for labels, count in zip(found.labels, found.counts or (), strict=True)
        ]
    complete = complete and len(listed) <= MAX_NAMESPACES
    return Namespaces(namespaces=listed[:MAX_NAMESPACES], complete=complete)


def _source(tool: str) -> store.Source:
    return store.Source.model_validate({"tool": tool})


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
