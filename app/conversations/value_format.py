"""Items as memories: how a stored value holds one, whoever wrote it."""

import json
from collections.abc import Mapping
from typing import Any

from app.conversations.types import Existing, Shape
from app.db.database import Row


def read_value(value: Mapping[str, Any]) -> tuple[Shape, str | None, dict[str, Any]]:
    """Return how a value holds a memory, the memory's kind, and its content.

    What has members besides those of a shape is content as a whole, so that nothing is lost.
    """
    content = value.get("content")
    if isinstance(content, dict):
        kind = value.get("kind")
        if isinstance(kind, str) and len(value) == 2:
            return Shape.MEMORY, kind, content
        if len(value) == 1:
            return Shape.CONTENT, None, content
    return Shape.VALUE, None, dict(value)


def write_value(shape: Shape, kind: str | None, content: dict[str, Any]) -> dict[str, Any]:
    """Return the value that holds a memory, as whoever wrote it before expects it."""
    match shape:
        case Shape.MEMORY:
            return {"kind": kind, "content": content}
        case Shape.CONTENT:
            return {"content": content}
        case Shape.VALUE:
            return content


def as_existing(row: Row, memory_id: str) -> Existing:
    """Return an item's row as a memory."""
    shape, kind, content = read_value(json.loads(row["value"]))
    return Existing(
        id=memory_id,
        kind=kind,
        content=content,
        shape=shape,
        namespace=row["namespace"],
        key=row["key"],
        version=row["version"],
        importance=row["importance"],
        valid_from=row["valid_from"],
        updated_at=row["updated_at"],
    )
