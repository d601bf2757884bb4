"""Scopes too large to read: which of their items are worth ranking."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from pgvector import HalfVector

from app.db import Connection
from app.providers.embeddings.base import Vector
from app.search.gathering import Asked
from app.search.lexical import Statistics, coverage, saturation
from app.search.packing import HITS, Rows
from app.search.pool import item_of_number, passage_number
from app.search.scope import Scope
from app.sql import Parameters

_SAMPLE = 2_000
"""Rows that a survey looks at: about a millisecond, whatever the table's size."""

_COUNTED_HITS = 100_000
"""A term's hits are counted up to so many: about two milliseconds by the index alone."""

_HITS = 20_000
"""Hits read to find passages by, the rarest terms' first; they decide, and cost some 10 ms."""

_MIN_EF_SEARCH = 200
"""Candidates the index keeps in view; with 100, recall@10 over 100,000 passages was 0.950."""

_MAX_EF_SEARCH = 1000
"""pgvector's limit."""

_MOST_PINNED = 1000
"""As many as a page can hold."""

_NEIGHBOURS = 2
"""Turns before and after a candidate that are ranked with it, as far as `context` looks."""


@dataclass(frozen=True, slots=True)
class Survey:
    """A scope from afar: which share of all items it holds, its statistics, its rarer hits."""

    share: float
    statistics: Statistics
    hits: Rows

    def best_by_words(self, items: int) -> list[int]:
        """Return the items whose passages hold most of the query's rarer words, best first."""
        hits = self.hits
        found, passage_of = np.unique(passage_number(hits), return_inverse=True)
        weights = np.zeros((len(self.statistics.passages_with), len(found)))
        weight = saturation(
            hits["frequency"].astype(np.float64),
            hits["length"].astype(np.float64),
            self.statistics.average_length,
        )
        np.maximum.at(weights, (hits["word"], passage_of.ravel()), weight)
        score = coverage(weights, self.statistics.rarity)
        item_ids = item_of_number(found)[np.argsort(-score, kind="stable")]
        _, firsts = np.unique(item_ids, return_index=True)
        return [int(item_id) for item_id in item_ids[np.sort(firsts)[:items]]]


async def survey(connection: Connection, scope: Scope, asked: Asked) -> Survey:
    """Sample the tables, count the hits of every term and read those of the rarer ones."""
    parameters = Parameters()
    index_id = parameters.add(asked.index_id, "smallint")
    in_scope = f"{scope.namespace_in_range('t', parameters)} AND t.index_id = {index_id}"
    row = await connection.fetchrow(
        f"""
        WITH counted AS MATERIALIZED (
            SELECT place, term, hits FROM {asked.terms(parameters)} CROSS JOIN LATERAL (
                SELECT count(*) AS hits FROM (
                    SELECT FROM terms t WHERE t.term = q.term AND {in_scope}
                    LIMIT {parameters.add(_COUNTED_HITS, "bigint")}
                ) AS hits
            ) AS counted WHERE hits > 0
        ), rarer AS MATERIALIZED (
            SELECT place, term FROM (
                SELECT place, term, sum(hits) OVER (ORDER BY hits, term) AS so_far,
                    row_number() OVER (ORDER BY hits, term) AS rank
                FROM counted
            ) AS ordered
            WHERE rank = 1 OR so_far <= {parameters.add(_HITS, "bigint")}
        )
        SELECT (
            SELECT avg(CASE WHEN {scope.holds_item(parameters)} THEN 1.0 ELSE 0.0 END)::float8
            FROM items i {_sample("items")}
        ) AS share, passages.*, (
            SELECT array_agg(place ORDER BY place) FROM counted
        ) AS places, (
            SELECT array_agg(hits ORDER BY place) FROM counted
        ) AS counts, (
            SELECT {HITS.sql()} FROM rarer q CROSS JOIN LATERAL (
                SELECT * FROM terms t WHERE t.term = q.term AND {in_scope}
                LIMIT {parameters.add(_COUNTED_HITS, "bigint")}
            ) AS t
        ) AS hits
        FROM (
            SELECT avg(CASE WHEN {scope.namespace_in_range("p", parameters)}
                    AND p.index_id = {index_id} THEN 1.0 ELSE 0.0 END)::float8 AS passage_share,
                avg(p.length) FILTER (
                    WHERE {scope.namespace_in_range("p", parameters)} AND p.index_id = {index_id}
                )::float8 AS average_length
            FROM passages p {_sample("passages")}
        ) AS passages
        """,
        *parameters.values,
    )
    total = await connection.fetchval(
        "SELECT greatest(reltuples, 1)::float8 FROM pg_class WHERE oid = 'passages'::regclass"
    )
    assert row is not None  # noqa: S101  # a query of aggregates has one row
    having = np.zeros(len(asked.words))
    for place, hits in zip(row["places"] or (), row["counts"] or (), strict=True):
        having[asked.word_of_place[place]] += hits
    passages = max(total * (row["passage_share"] or 0.0), float(having.max(initial=1.0)))
    statistics = Statistics(passages, row["average_length"] or 0.0, having)
    return Survey(row["share"] or 0.0, statistics, asked.hits(row["hits"]))


def _sample(table: str) -> str:
    return f"""TABLESAMPLE SYSTEM ((
        SELECT least(100, 100.0 * {_SAMPLE} / greatest(reltuples, 1))
        FROM pg_class WHERE oid = '{table}'::regclass
    )) REPEATABLE (0)"""


async def nearest_by_index(
    connection: Connection, scope: Scope, asked: Asked, *, passages: int
) -> list[int]:
    """Return the items of the nearest passages, one as often as it matched.

    Fewer than `passages` means that the index gave up or the scope has no more.
    """
    if asked.vector is None:
        return []
    async with connection.transaction():
        return await _nearest_by_index(connection, scope, asked, asked.vector, passages)


async def _nearest_by_index(
    connection: Connection, scope: Scope, asked: Asked, to: Vector, passages: int
) -> list[int]:
    # A plan that sorts would read the whole scope; without sorting only the HNSW index delivers
    # the order, and it goes on (iterative scan) until enough rows have passed the conditions.
    await connection.execute(
        "SELECT set_config('enable_sort', 'off', true), "
        "set_config('hnsw.ef_search', $1::int::text, true)",
        min(max(passages, _MIN_EF_SEARCH), _MAX_EF_SEARCH),
    )
    parameters = Parameters()
    # The partial index is recognised by these two integers, so they stand in the text.
    index_id, dimensions = int(asked.index_id), len(to)
    vector = parameters.add(HalfVector(to), f"halfvec({dimensions})")
    rows = await connection.fetch(
        f"""
        SELECT p.item_id
        FROM passages p JOIN items i ON i.namespace = p.namespace AND i.key = p.key
        WHERE p.index_id = {index_id} AND {scope.holds_item(parameters)}
            AND {scope.namespace_in_range("p", parameters)}
        ORDER BY p.embedding::halfvec({dimensions}) <=> {vector}
        LIMIT {parameters.add(passages, "bigint")}
        """,
        *parameters.values,
    )
    return [row["item_id"] for row in rows]


async def neighbours(connection: Connection, item_ids: Iterable[int]) -> list[int]:
    """Return the items that stand beside some items in their threads."""
    rows = await connection.fetch(
        """
        SELECT DISTINCT beside.id FROM items i CROSS JOIN LATERAL (
            (SELECT n.id FROM items n
            WHERE n.namespace = i.namespace AND n.thread_id = i.thread_id
                AND n.position <= i.position
            ORDER BY n.position DESC LIMIT $2)
            UNION ALL
            (SELECT n.id FROM items n
            WHERE n.namespace = i.namespace AND n.thread_id = i.thread_id
                AND n.position >= i.position
            ORDER BY n.position LIMIT $2)
        ) AS beside
        WHERE i.id = ANY($1::bigint[]) AND i.thread_id IS NOT NULL AND i.position IS NOT NULL
        """,
        list(item_ids),
        _NEIGHBOURS + 1,
    )
    return [row["id"] for row in rows]


async def pinned_items(connection: Connection, scope: Scope) -> list[int]:
    """Return the pinned items of a scope, the last updated first."""
    parameters = Parameters()
    rows = await connection.fetch(
        f"SELECT i.id FROM items i WHERE i.pinned AND {scope.is_alive(parameters)} "
        f"ORDER BY i.updated_at DESC LIMIT {_MOST_PINNED}",
        *parameters.values,
    )
    return [row["id"] for row in rows]
