"""Found rows to the JSON that clients get."""

from collections.abc import Iterable
from typing import Any

from app.auth.access import Access
from app.db import Row
from app.store import encoding


def found_items(rows: Iterable[Row], access: Access) -> dict[str, Any]:
    """Return items with their scores as members for `store.encoding.encode`."""
    return {"items": [encoding.item(row, access) | {"score": row["score"]} for row in rows]}
