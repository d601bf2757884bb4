"""SQL that finds the items nearest to a vector: exactly in small scopes, by index in large ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from asyncpg import Record
from pgvector import HalfVector

from app.db import Connection
from app.namespaces import Range
from app.providers.embeddings.base import Vector
from app.sql import Parameters
from app.store.filters import Filter, to_sql
from app.store.writes import Address

_COLUMNS = (
    "found.namespace, found.key, found.value, found.version, found.importance, found.valid_from, "
    "found.valid_to, found.source, found.ttl, found.expires_at, found.created_at, found.updated_at"
)

_BEST_FIRST = "score DESC NULLS LAST, updated_at DESC, namespace, key"

_SAMPLE = 2_000
"""Items that `share_of_all` looks at: about a millisecond, whatever the table's size."""

_MIN_EF_SEARCH = 200
"""Candidates the index keeps in view; with 100, recall@10 over 100,000 passages was 0.950."""

_MAX_EF_SEARCH = 1000
"""pgvector's limit."""


@dataclass(frozen=True, slots=True)
class Scope:
    """The items a search is about."""

    namespaces: Range
    filter: Filter | None
    now: datetime
    with_expired: bool


@dataclass(frozen=True, slots=True)
class Target:
    """What items are compared with: a vector and the model that made it."""

    vector: Vector
    model_id: int


@dataclass(frozen=True, slots=True)
class Page:
    """Which of the ordered results to return."""

    limit: int
    offset: int


async def newest(connection: Connection, scope: Scope, page: Page) -> list[Record]:
    """Return the items of a scope, the last updated first."""
    parameters = Parameters()
    return await connection.fetch(
        f"SELECT {_COLUMNS.replace('found.', 'i.')}, NULL::float8 AS score FROM items i "
        f"WHERE {_is_in(scope, parameters)} ORDER BY updated_at DESC, namespace, key "
        f"{_limit(page, parameters)}",
        *parameters.values,
    )


async def nearest_exactly(
    connection: Connection, scope: Scope, target: Target, page: Page, *, largest: int
) -> list[Record] | None:
    """Return items by their best passage, then those without passages, comparing every one.

    None when the scope has more than `largest` passages: counting them is cheap, comparing not.
    """
    parameters = Parameters()
    of_scope = _passages_of(scope, target, parameters)
    is_in = _is_in(scope, parameters)
    limit = parameters.add(largest, "bigint")
    vector = parameters.add(HalfVector(target.vector), "halfvec")
    # Items and passages are gathered by grouping, not by a join: for a narrow range of namespaces
    # the planner expects a single row, and would join thousands by a loop within a loop.
    rows = await connection.fetch(
        f"""
        WITH size AS MATERIALIZED (
            SELECT count(*) > {limit} AS too_large
            FROM (SELECT FROM passages p WHERE {of_scope} LIMIT {limit} + 1) AS counted
        ), ranked AS MATERIALIZED (
            SELECT namespace, key, max(updated_at) AS updated_at, max(score) AS score FROM (
                SELECT p.namespace, p.key, NULL::timestamptz AS updated_at,
                    1 - (p.embedding <=> {vector}) AS score
                FROM passages p WHERE {of_scope} AND NOT (SELECT too_large FROM size)
                UNION ALL
                SELECT i.namespace, i.key, i.updated_at, NULL
                FROM items i WHERE {is_in} AND NOT (SELECT too_large FROM size)
            ) AS passages_and_items
            GROUP BY namespace, key HAVING count(updated_at) > 0
            ORDER BY {_BEST_FIRST} {_limit(page, parameters)}
        )
        SELECT too_large, score, {_COLUMNS}
        FROM size LEFT JOIN (ranked JOIN items found USING (namespace, key)) ON true
        ORDER BY score DESC NULLS LAST, found.updated_at DESC, found.namespace, found.key
        """,
        *parameters.values,
    )
    return None if rows[0]["too_large"] else [row for row in rows if row["key"] is not None]


async def nearest_filtered(
    connection: Connection, scope: Scope, target: Target, page: Page
) -> list[Record]:
    """Return what `nearest_exactly` does, filtering first: for a few items of a large scope."""
    parameters = Parameters()
    vector = parameters.add(HalfVector(target.vector), "halfvec")
    model = parameters.add(target.model_id, "smallint")
    return await connection.fetch(
        f"""
        WITH ranked AS MATERIALIZED (
            SELECT i.namespace, i.key, i.updated_at, best.score
            FROM items i CROSS JOIN LATERAL (
                SELECT max(1 - (p.embedding <=> {vector})) AS score FROM passages p
                WHERE p.namespace = i.namespace AND p.key = i.key AND p.model_id = {model}
            ) AS best
            WHERE {_is_in(scope, parameters)}
            ORDER BY {_BEST_FIRST} {_limit(page, parameters)}
        )
        SELECT score, {_COLUMNS} FROM ranked JOIN items found USING (namespace, key)
        ORDER BY score DESC NULLS LAST, found.updated_at DESC, found.namespace, found.key
        """,
        *parameters.values,
    )


async def share_of_all(connection: Connection, scope: Scope) -> float:
    """Return, from a sample of the whole table, about what share of all items a scope holds."""
    parameters = Parameters()
    share: float | None = await connection.fetchval(
        f"""
        SELECT avg(CASE WHEN {_is_in(scope, parameters)} THEN 1.0 ELSE 0.0 END)::float8
        FROM items i TABLESAMPLE SYSTEM ((
            SELECT least(100, 100.0 * {_SAMPLE} / greatest(reltuples, 1))
            FROM pg_class WHERE oid = 'items'::regclass
        ))
        """,
        *parameters.values,
    )
    return share or 0.0


async def nearest_by_index(
    connection: Connection, scope: Scope, target: Target, *, passages: int
) -> list[tuple[Address, float]]:
    """Return the nearest passages' items and scores, best first, an item as often as it matched.

    Fewer than `passages` means that the index gave up or the scope has no more. Runs in a
    transaction, whose planner settings it changes.
    """
    # A plan that sorts would read the whole scope; without sorting only the HNSW index delivers
    # the order, and it goes on (iterative scan) until enough rows have passed the conditions.
    await connection.execute(
        "SELECT set_config('enable_sort', 'off', true), "
        "set_config('hnsw.ef_search', $1::int::text, true)",
        min(max(passages, _MIN_EF_SEARCH), _MAX_EF_SEARCH),
    )
    parameters = Parameters()
    is_in = _is_in(scope, parameters)
    # The partial index is recognised by these two integers, so they stand in the text.
    model, dimensions = int(target.model_id), len(target.vector)
    vector = parameters.add(HalfVector(target.vector), f"halfvec({dimensions})")
    distance = f"p.embedding::halfvec({dimensions}) <=> {vector}"
    rows = await connection.fetch(
        f"""
        SELECT p.namespace, p.key, 1 - ({distance}) AS score
        FROM passages p JOIN items i ON i.namespace = p.namespace AND i.key = p.key
        WHERE p.model_id = {model} AND {is_in}
            AND p.namespace >= {parameters.add(scope.namespaces.low, "text")}
            AND p.namespace < {parameters.add(scope.namespaces.high, "text")}
        ORDER BY {distance} LIMIT {parameters.add(passages, "bigint")}
        """,
        *parameters.values,
    )
    # Iterative scans deliver in rounds, each ordered in itself.
    ordered = sorted(rows, key=lambda row: -row["score"])
    return [((row["namespace"], row["key"]), row["score"]) for row in ordered]


async def fetch_scored(
    connection: Connection, scored: Sequence[tuple[Address, float]]
) -> list[Record]:
    """Return the items at scored addresses, in the given order."""
    return await connection.fetch(
        f"""
        SELECT {_COLUMNS}, wanted.score
        FROM unnest($1::text[], $2::text[], $3::float8[]) WITH ORDINALITY
            AS wanted (namespace, key, score, place)
        JOIN items found USING (namespace, key) ORDER BY place
        """,
        [namespace for (namespace, _), _ in scored],
        [key for (_, key), _ in scored],
        [score for _, score in scored],
    )


def _passages_of(scope: Scope, target: Target, parameters: Parameters) -> str:
    low = parameters.add(scope.namespaces.low, "text")
    high = parameters.add(scope.namespaces.high, "text")
    model = parameters.add(target.model_id, "smallint")
    return f"p.namespace >= {low} AND p.namespace < {high} AND p.model_id = {model}"


def _is_in(scope: Scope, parameters: Parameters) -> str:
    conditions = [
        f"i.namespace >= {parameters.add(scope.namespaces.low, 'text')}",
        f"i.namespace < {parameters.add(scope.namespaces.high, 'text')}",
    ]
    if not scope.with_expired:
        now = parameters.add(scope.now, "timestamptz")
        conditions.append(f"(i.expires_at IS NULL OR i.expires_at > {now})")
    if scope.filter is not None:
        conditions.append(f"({to_sql(scope.filter, parameters)})")
    return " AND ".join(conditions)


def _limit(page: Page, parameters: Parameters) -> str:
    limit = parameters.add(page.limit, "bigint")
    return f"LIMIT {limit} OFFSET {parameters.add(page.offset, 'bigint')}"
