"""SQL on the sources of items: when they were said, and items that rest on others."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from app.db.database import Connection
from app.store.repository import to_columns
from app.store.types import Address

# Versions that were read are skipped if they are no longer the newest: their text has changed.
_EXTEND_SAID = """
WITH extended AS (
    UPDATE items SET said_first = least(said_first, first), said_last = greatest(said_last, last)
    FROM unnest($1::text[], $2::text[], $3::bigint[], $4::timestamptz[], $5::timestamptz[])
        AS t (namespace, key, version, first, last)
    WHERE items.namespace = t.namespace AND items.key = t.key AND items.version = t.version
    RETURNING items.namespace, items.key, items.version, items.said_first, items.said_last
)
UPDATE item_versions past SET said_first = extended.said_first, said_last = extended.said_last
FROM extended WHERE past.namespace = extended.namespace AND past.key = extended.key
    AND past.version = extended.version
"""

_CLEAR_STALE = """
UPDATE items SET stale = false FROM unnest($1::text[], $2::text[]) AS t (namespace, key)
WHERE items.namespace = t.namespace AND items.key = t.key AND stale
"""


async def extend_said(
    connection: Connection, said: Mapping[tuple[Address, int], tuple[datetime, datetime]]
) -> None:
    """Extend the times at which items, at versions, were said; this makes no new versions."""
    places = sorted(said)
    await connection.execute(
        _EXTEND_SAID,
        *to_columns(address for address, _ in places),
        [version for _, version in places],
        [said[place][0] for place in places],
        [said[place][1] for place in places],
    )


async def clear_stale(connection: Connection, addresses: Iterable[Address]) -> None:
    """Take back the marks of stale items that were looked at."""
    await connection.execute(_CLEAR_STALE, *to_columns(sorted(addresses)))
