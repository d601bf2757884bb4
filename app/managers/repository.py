"""All SQL on managers, run on a connection somebody else opened."""

from datetime import datetime

from asyncpg import Record

from app.db.database import Connection
from app.db.pages import fetch_page
from app.pagination import Page

COLUMNS = "name, config, version, created_at, updated_at"

# Until the end of the transaction, also where there is no row yet that could be locked.
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('manager ' || $1 || $2, 0))"

_FIND = f"SELECT {COLUMNS} FROM managers WHERE namespace = $1 AND name = $2"

_FIND_PAGE = f"""
SELECT {COLUMNS}, octet_length(config::text) AS bytes
FROM managers WHERE namespace = $1 AND name > $2 ORDER BY name LIMIT $3
"""

_WRITE = f"""
INSERT INTO managers AS present (namespace, name, config, version, created_at, updated_at)
VALUES ($1, $2, $3, 1, $4, $4)
ON CONFLICT (namespace, name) DO UPDATE SET
    config = excluded.config, version = present.version + 1, updated_at = excluded.updated_at
RETURNING {COLUMNS}
"""

_DELETE = "DELETE FROM managers WHERE namespace = $1 AND name = $2"


async def lock(connection: Connection, root: str, name: str) -> None:
    """Wait until no other transaction changes this manager, and keep others waiting."""
    await connection.execute(_LOCK, root, name)


async def find(connection: Connection, root: str, name: str) -> Record | None:
    """Return the manager of that name."""
    return await connection.fetchrow(_FIND, root, name)


async def find_page(connection: Connection, root: str, *, after: str, limit: int) -> Page[Record]:
    """Return a page of managers in the order of their names, from the first behind `after` on."""
    return await fetch_page(connection, _FIND_PAGE, root, after, limit + 1, limit=limit)


async def write(connection: Connection, root: str, name: str, config: str, now: datetime) -> Record:
    """Create a manager or replace its configuration, which is JSON text."""
    row = await connection.fetchrow(_WRITE, root, name, config, now)
    assert row is not None  # noqa: S101  # the statement always returns its row
    return row


async def delete(connection: Connection, root: str, name: str) -> None:
    """Remove a manager, if it exists."""
    await connection.execute(_DELETE, root, name)
