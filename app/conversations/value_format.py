"""Items as memories: how a stored value holds one, whoever wrote it."""

from collections.abc import Mapping
from typing import Any

from app.conversations.types import Memory, MemoryFormat
from app.store.types import Item


def read_value(value: Mapping[str, Any]) -> tuple[MemoryFormat, str | None, dict[str, Any]]:
    """Return how a value holds a memory, the memory's kind, and its content.

    What has members besides those of a format is content as a whole, so that nothing is lost.
    """
    content = value.get("content")
    if isinstance(content, dict):
        kind = value.get("kind")
        if isinstance(kind, str) and len(value) == 2:
            return MemoryFormat.MEMORY, kind, content
        if len(value) == 1:
            return MemoryFormat.CONTENT, None, content
    return MemoryFormat.VALUE, None, dict(value)


def write_value(format_: MemoryFormat, kind: str | None, content: dict[str, Any]) -> dict[str, Any]:
    """Return the value that holds a memory, as whoever wrote it before expects it."""
    match format_:
        case MemoryFormat.MEMORY:
            return {"kind": kind, "content": content}
        case MemoryFormat.CONTENT:
            return {"content": content}
        case MemoryFormat.VALUE:
            return content


def as_existing(item: Item, memory_id: str) -> Memory:
    """Return an item as a memory."""
    format_, kind, content = read_value(item.parse_value())
    return Memory(
        id=memory_id,
        kind=kind,
        content=content,
        format=format_,
        namespace=item.address.namespace,
        key=item.address.key,
        version=item.version,
        importance=item.metadata.importance,
        valid_from=item.metadata.valid_from,
        updated_at=item.updated_at,
    )
