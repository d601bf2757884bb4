"""SQL on the items of a namespace as a file tree: a directory is a range of keys.

It only reads; the file tree changes items through the store's writer.
"""

from collections.abc import Sequence
from datetime import datetime

from app.db.database import Connection
from app.namespaces import StoredNamespace
from app.store.repository import COLUMNS, read_item
from app.store.schemas import MAX_KEY_CHARACTERS
from app.store.types import Address, Item

_LAST_KEY = "\U0010ffff" * MAX_KEY_CHARACTERS
"""Sorts after every key."""

_ALIVE = "(expires_at IS NULL OR expires_at > $2)"

_BELOW = f"""
FROM items WHERE namespace = $1 AND {_ALIVE} AND key >= $3 AND key <= $4 ORDER BY key LIMIT $5
"""

_KEYS = f"SELECT key {_BELOW}"

_FILES = f"SELECT {COLUMNS} {_BELOW}"

# An item without text is shown as JSON, and has the size of the stored JSON.
_SIZES = f"""
SELECT key, octet_length(CASE jsonb_typeof(value -> 'content')
    WHEN 'string' THEN value ->> 'content' ELSE value::text END) AS size {_BELOW}
"""

_OBSTACLE = f"""
(SELECT key FROM items
WHERE namespace = $1 AND {_ALIVE} AND key = ANY($5::text[]) AND key <> ALL($6::text[]) LIMIT 1)
UNION ALL
(SELECT key FROM items
WHERE namespace = $1 AND {_ALIVE} AND key >= $3 AND key <= $4 AND key <> ALL($6::text[]) LIMIT 1)
LIMIT 1
"""


async def keys_below(
    connection: Connection, directory: Address, now: datetime, limit: int
) -> list[str]:
    """Return the first keys in a directory and below, in order."""
    rows = await connection.fetch(_KEYS, *_below(directory, now), limit)
    return [row["key"] for row in rows]


async def sizes_below(
    connection: Connection, directory: Address, now: datetime, limit: int
) -> list[tuple[str, int]]:
    """Return the first keys in a directory and below, in order, with the bytes of their texts."""
    rows = await connection.fetch(_SIZES, *_below(directory, now), limit)
    return [(row["key"], row["size"]) for row in rows]


async def files_below(
    connection: Connection, directory: Address, now: datetime, limit: int
) -> list[Item]:
    """Return the first items in a directory and below, in order."""
    return list(map(read_item, await connection.fetch(_FILES, *_below(directory, now), limit)))


async def find_obstacle(
    connection: Connection,
    namespace: StoredNamespace,
    lineage: Sequence[str],
    now: datetime,
    *,
    besides: Sequence[str] = (),
) -> str | None:
    """Return a key that prevents the last key of a lineage from being a new file or directory.

    It is the key of one of its directories, the key itself, or a key below it.
    """
    below = _below(Address(namespace, lineage[-1]), now)
    found: str | None = await connection.fetchval(_OBSTACLE, *below, lineage, besides)
    return found


def _below(directory: Address, now: datetime) -> tuple[str, datetime, str, str]:
    """Return the first four parameters: the range of keys in a directory; "" is /memories."""
    namespace, key = directory
    start = f"{key}/" if key else ""
    return namespace, now, start, start + _LAST_KEY
