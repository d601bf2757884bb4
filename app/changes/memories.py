"""Stored items as memories."""

from app.conversations.content import read_value
from app.conversations.types import Memory
from app.store.types import Item


def to_memory(item: Item, memory_id: str) -> Memory:
    """Return an item as a memory with a short id."""
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
