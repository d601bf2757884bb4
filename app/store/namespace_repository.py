"""SQL on the table `namespaces`: listed without reading their items, and pruned."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile

import asyncpg

from app.db.database import Connection, Database, Parameters
from app.db.pages import fetch_page
from app.namespaces import ALL_ROOTS, Labels, Range, Root, from_stored, stored_range, to_stored

WILDCARD = "*"


_BATCH = 500

_PRUNE = """
WITH emptied AS (
    SELECT namespace FROM namespaces
    WHERE NOT EXISTS (SELECT FROM items WHERE items.namespace = namespaces.namespace)
    LIMIT $1 FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM namespaces USING emptied WHERE namespaces.namespace = emptied.namespace
    RETURNING 1
)
SELECT count(*) FROM gone
"""


@dataclass(frozen=True, slots=True)
class NamespaceQuery:
    """Which namespaces to list; labels are the caller's, below its root."""

    prefix: Labels = ()
    suffix: Labels = ()
    max_depth: int | None = None
    limit: int = 100
    offset: int = 0
    with_counts: bool = False


@dataclass(frozen=True, slots=True)
class ListedNamespaces:
    """Namespaces, the number of items in each, and the offset of the rest if the page is cut."""

    labels: list[list[str]]
    counts: list[int] | None
    next_offset: int | None


async def list_namespaces(
    connection: Connection, root: Root, query: NamespaceQuery, now: datetime, max_bytes: int
) -> tuple[list[list[str]], bool]:
    """Return distinct label lists in ascending order, and whether `max_bytes` cut them short.

    Only namespaces with unexpired items.
    """
    parameters = Parameters()
    sql = _listing_sql(root, query, parameters, now)
    page = await fetch_page(
        connection, sql, *parameters.values, limit=query.limit, max_bytes=max_bytes
    )
    return [list(row["labels"]) for row in page.items], page.more


async def count_items(connection: Connection, scopes: Sequence[Range], now: datetime) -> list[int]:
    """Return how many unexpired items each range of namespaces holds."""
    rows = await connection.fetch(
        "SELECT (SELECT count(*) FROM items WHERE namespace >= low AND namespace < high "
        "AND (expires_at IS NULL OR expires_at > $3)) AS items "
        "FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS scope (low, high, place) "
        "ORDER BY place",
        [scope.low for scope in scopes],
        [scope.high for scope in scopes],
        now,
    )
    return [row["items"] for row in rows]


def _listing_sql(root: Root, query: NamespaceQuery, parameters: Parameters, now: datetime) -> str:
    hidden = len(from_stored(root))
    scope = stored_range(to_stored(literal_start(query.prefix), root))
    conditions = [
        f"namespace >= {parameters.add(scope.low, 'text')}",
        f"namespace < {parameters.add(scope.high, 'text')}",
        f"cardinality(labels) >= {hidden + max(len(query.prefix), len(query.suffix))}",
        *_labels_match(query.prefix, str(hidden), parameters),
        *_labels_match(query.suffix, f"cardinality(labels) - {len(query.suffix)}", parameters),
        # LIMIT keeps it a look at one index entry; EXISTS would read every item of a namespace.
        f"(SELECT true FROM items WHERE items.namespace = namespaces.namespace AND "
        f"(expires_at IS NULL OR expires_at > {parameters.add(now, 'timestamptz')}) LIMIT 1)",
    ]
    end = "" if query.max_depth is None else str(hidden + query.max_depth)
    # Stored text orders as label lists do, the separator sorting below what labels are made of.
    # So equal cut lists are adjacent, and the scan stops at the limit.
    return f"""
    SELECT labels, octet_length(array_to_string(labels, '","')) AS bytes FROM (
        SELECT namespace, labels[{hidden + 1}:{end}] AS labels,
            lag(labels[{hidden + 1}:{end}]) OVER (ORDER BY namespace) AS before
        FROM namespaces WHERE {" AND ".join(conditions)}
    ) AS listed
    WHERE before IS DISTINCT FROM labels ORDER BY namespace
    LIMIT {parameters.add(query.limit, "bigint")} OFFSET {parameters.add(query.offset, "bigint")}
    """


def literal_start(prefix: Labels) -> list[str]:
    """Return the labels before the first wildcard."""
    return list(takewhile(lambda label: label != WILDCARD, prefix))


def _labels_match(pattern: Labels, start: str, parameters: Parameters) -> list[str]:
    return [
        f"labels[{start} + {place}] = {parameters.add(label, 'text')}"
        for place, label in enumerate(pattern, 1)
        if label != WILDCARD
    ]


async def prune_namespaces(database: Database) -> int:
    """Remove the rows of namespaces without items; return their number."""
    removed = 0
    while True:
        try:
            async with database.transaction(ALL_ROOTS) as connection:
                batch: int = await connection.fetchval(_PRUNE, _BATCH)
        except asyncpg.ForeignKeyViolationError:
            return removed  # one got an item again; the next call takes the others
        removed += batch
        if batch < _BATCH:
            return removed
