"""SQL that reads the history of items, on a caller's connection."""

from datetime import datetime

from app.db.database import Connection, Row
from app.db.pages import Page, fetch_page
from app.store.repository import METADATA, METADATA_COLUMNS, read_item, read_metadata, read_paths
from app.store.types import Address, Item, ItemVersion

_VERSION_COLUMNS = (
    f"namespace, key, version, action, value, index_paths, {METADATA_COLUMNS}, actor, recorded_at, "
    "coalesce(version = (SELECT CASE WHEN embed_after IS NOT NULL THEN present.version END "
    "FROM items present WHERE namespace = $1 AND key = $2), false) AS waits"
)

_VERSIONS = f"""
SELECT {_VERSION_COLUMNS}, coalesce(value_bytes, 0) AS bytes
FROM item_versions
WHERE namespace = $1 AND key = $2 AND version < coalesce($3, 9223372036854775807)
ORDER BY version DESC LIMIT $4
"""

_VERSION = f"""
SELECT {_VERSION_COLUMNS}
FROM item_versions WHERE namespace = $1 AND key = $2 AND version = $3
"""

_AS_OF = f"""
SELECT 0 AS id, namespace, key, past.version, past.value, past.index_paths,
    {", ".join(f"past.{column}" for column in METADATA)}, past.recorded_at AS updated_at,
    NULL::interval AS ttl, NULL::timestamptz AS expires_at, present.embed_after, false AS stale,
    present.expires_at <= $3 AS expired, (
        SELECT min(born.recorded_at) FROM item_versions born
        WHERE born.namespace = past.namespace AND born.key = past.key
            AND born.version > coalesce((
                SELECT max(ended.version) FROM item_versions ended
                WHERE ended.namespace = past.namespace AND ended.key = past.key
                    AND ended.version < past.version AND ended.value IS NULL
            ), 0)
    ) AS created_at
FROM item_versions past LEFT JOIN items present USING (namespace, key, version)
WHERE namespace = $1 AND key = $2 AND past.recorded_at <= $3
ORDER BY past.version DESC LIMIT 1
"""


async def find_versions(
    connection: Connection, address: Address, *, before: int | None, limit: int
) -> Page[ItemVersion]:
    """Return a page of an item's history, newest first."""
    page = await fetch_page(connection, _VERSIONS, *address, before, limit + 1, limit=limit)
    return page.map(_read_version)


async def find_version(
    connection: Connection, address: Address, version: int
) -> ItemVersion | None:
    """Return one state of an item's history."""
    row = await connection.fetchrow(_VERSION, *address, version)
    return None if row is None else _read_version(row)


async def find_as_of(connection: Connection, address: Address, moment: datetime) -> Item | None:
    """Return the state an item had at a moment, or None if there was none."""
    row = await connection.fetchrow(_AS_OF, *address, moment)
    is_there = row is not None and row["value"] is not None and not row["expired"]
    return read_item(row) if row is not None and is_there else None


def _read_version(row: Row) -> ItemVersion:
    value = row["value"]
    return ItemVersion(
        Address(row["namespace"], row["key"]),
        row["version"],
        row["action"],
        value,
        None if value is None else read_metadata(row),
        read_paths(row),
        row["actor"],
        row["recorded_at"],
        not row["waits"],
    )
