"""All SQL on API keys, and their table."""

import json
from collections.abc import Sequence
from datetime import datetime

from asyncpg import Record
from sqlalchemy import Column, DateTime, Integer, LargeBinary, Table, Text
from sqlalchemy.dialects.postgresql import JSONB

from app.auth.access import ApiKey, Grant, Rates, Verb
from app.db.database import Connection
from app.db.tables import metadata

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("secret_hash", LargeBinary, nullable=False),
    Column("root", Text(collation="C"), nullable=False),
    Column("grants", JSONB, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True)),
    Column("revoked_at", DateTime(timezone=True)),
    Column("requests_per_minute", Integer, comment="NULL: the default."),
    Column("jobs_per_minute", Integer, comment="NULL: the default."),
    comment="API keys; the secret itself is never stored.",
)


_COLUMNS = (
    "id, name, secret_hash, root, grants, created_at, expires_at, revoked_at, "
    "requests_per_minute, jobs_per_minute"
)


async def insert(connection: Connection, key: ApiKey) -> None:
    """Store a new key."""
    await connection.execute(
        f"INSERT INTO api_keys ({_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        key.id,
        key.name,
        key.secret_hash,
        key.root,
        json.dumps([{"prefix": g.prefix, "verbs": sorted(g.verbs)} for g in key.grants]),
        key.created_at,
        key.expires_at,
        key.revoked_at,
        key.rates.requests,
        key.rates.jobs,
    )


async def find_many(connection: Connection, key_ids: Sequence[str]) -> dict[str, ApiKey]:
    """Return the keys that exist, by id."""
    rows = await connection.fetch(
        f"SELECT {_COLUMNS} FROM api_keys WHERE id = ANY($1::text[])", key_ids
    )
    return {row["id"]: _key(row) for row in rows}


async def find_all(connection: Connection) -> list[ApiKey]:
    """Return every key, oldest first, revoked and expired ones included."""
    rows = await connection.fetch(f"SELECT {_COLUMNS} FROM api_keys ORDER BY created_at, id")
    return [_key(row) for row in rows]


async def exist(connection: Connection) -> bool:
    """Return whether any key was ever created; a revoked one still closes the server."""
    return bool(await connection.fetchval("SELECT EXISTS (SELECT 1 FROM api_keys)"))


async def revoke(connection: Connection, key_id: str, now: datetime) -> bool:
    """Mark a key as revoked; False when there is none of that id."""
    status = await connection.execute(
        "UPDATE api_keys SET revoked_at = coalesce(revoked_at, $2) WHERE id = $1", key_id, now
    )
    return bool(status == "UPDATE 1")


def _key(row: Record) -> ApiKey:
    grants = tuple(
        Grant(tuple(grant["prefix"]), frozenset(map(Verb, grant["verbs"])))
        for grant in json.loads(row["grants"])
    )
    columns = dict(row)
    rates = Rates(columns.pop("requests_per_minute"), columns.pop("jobs_per_minute"))
    return ApiKey(**{**columns, "grants": grants, "rates": rates})
