"""All SQL on managers, and their table; the caller opens the connection."""

from dataclasses import dataclass
from datetime import datetime

from asyncpg import Record
from sqlalchemy import Column, Integer, PrimaryKeyConstraint, Table
from sqlalchemy.dialects.postgresql import JSON

from app.db.database import Connection
from app.db.pages import Page, fetch_page
from app.db.tables import BYTEWISE, TIME, metadata
from app.json_values import JsonText

managers = Table(
    "managers",
    metadata,
    Column("namespace", BYTEWISE, nullable=False, comment="Root of the keys that may use it."),
    Column("name", BYTEWISE, nullable=False),
    Column("config", JSON, nullable=False, comment="As text: jsonb would sort members."),
    Column("version", Integer, nullable=False),
    Column("created_at", TIME, nullable=False),
    Column("updated_at", TIME, nullable=False),
    PrimaryKeyConstraint("namespace", "name"),
    comment="Stored configurations of extraction.",
)


@dataclass(frozen=True, slots=True)
class Manager:
    """A stored manager; `config` is the JSON text that was sent."""

    name: str
    config: JsonText
    version: int
    created_at: datetime
    updated_at: datetime


_COLUMNS = "name, config, version, created_at, updated_at"

# Until the end of the transaction, even if there is no row yet that could be locked.
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('manager ' || $1 || $2, 0))"

_FIND = f"SELECT {_COLUMNS} FROM managers WHERE namespace = $1 AND name = $2"

_FIND_PAGE = f"""
SELECT {_COLUMNS}, octet_length(config::text) AS bytes
FROM managers WHERE namespace = $1 AND name > $2 ORDER BY name LIMIT $3
"""

_WRITE = f"""
INSERT INTO managers AS present (namespace, name, config, version, created_at, updated_at)
VALUES ($1, $2, $3, 1, $4, $4)
ON CONFLICT (namespace, name) DO UPDATE SET
    config = excluded.config, version = present.version + 1, updated_at = excluded.updated_at
RETURNING {_COLUMNS}
"""

_DELETE = "DELETE FROM managers WHERE namespace = $1 AND name = $2"


async def lock(connection: Connection, root: str, name: str) -> None:
    """Keep other transactions from changing a manager until the end of this one."""
    await connection.execute(_LOCK, root, name)


async def find(connection: Connection, root: str, name: str) -> Manager | None:
    """Return the manager of that name."""
    row = await connection.fetchrow(_FIND, root, name)
    return None if row is None else _manager_of(row)


async def find_page(connection: Connection, root: str, *, after: str, limit: int) -> Page[Manager]:
    """Return a page of managers by name, from the first after `after` on."""
    page = await fetch_page(connection, _FIND_PAGE, root, after, limit + 1, limit=limit)
    return page.map(_manager_of)


async def write(
    connection: Connection, root: str, name: str, config: str, now: datetime
) -> Manager:
    """Create a manager or replace its configuration, which is JSON text."""
    row = await connection.fetchrow(_WRITE, root, name, config, now)
    assert row is not None  # noqa: S101  # the statement always returns its row
    return _manager_of(row)


async def delete(connection: Connection, root: str, name: str) -> None:
    """Remove a manager, if it exists."""
    await connection.execute(_DELETE, root, name)


def _manager_of(row: Record) -> Manager:
    return Manager(
        name=row["name"],
        config=JsonText(row["config"]),
        version=row["version"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
