"""A scope too large to read, seen from afar: how large it is, and where the rarer words stand."""

from dataclasses import dataclass

import numpy as np

from app.db.database import Connection
from app.db.sql import Parameters
from app.search.gathering import Asked
from app.search.lexical import Statistics, coverage, saturation
from app.search.packing import HITS, Rows
from app.search.pool import Floats, item_of_number, passage_number
from app.search.scope import Scope

_SAMPLE = 2_000
"""Rows that a survey looks at: about a millisecond, whatever the table's size."""

_COUNTED_HITS = 100_000
"""A term's hits are counted up to so many: about two milliseconds by the index alone."""

_HITS = 20_000
"""Hits read to find passages by, the rarest terms' first; they decide, and cost some 10 ms."""


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


@dataclass(frozen=True, slots=True)
class _Sample:
    """Of the whole store: the share of items in the scope, its passages and their mean length."""

    share: float
    passages: float
    average_length: float


async def survey(connection: Connection, scope: Scope, asked: Asked) -> Survey:
    """Sample the tables, count the hits of every term and read those of the rarer ones."""
    sample = await _sample(connection, scope, asked.index_id)
    passages_with, hits = await _rarer_hits(connection, scope, asked)
    passages = max(sample.passages, float(passages_with.max(initial=1.0)))
    statistics = Statistics(passages, sample.average_length, passages_with)
    return Survey(sample.share, statistics, hits)


async def _sample(connection: Connection, scope: Scope, index_id: int) -> _Sample:
    parameters = Parameters()
    index = parameters.add(index_id, "smallint")
    is_passage = f"{scope.namespace_in_range('p', parameters)} AND p.index_id = {index}"
    row = await connection.fetchrow(
        f"""
        SELECT (
            SELECT {_share("items", scope.holds_item(parameters))} FROM items i {_sampled("items")}
        ) AS share, {_share("passages", is_passage)} * {_rows("passages")} AS passages,
            coalesce(avg(p.length) FILTER (WHERE {is_passage}), avg(p.length))::float8 AS length
        FROM passages p {_sampled("passages")}
        """,
        *parameters.values,
    )
    assert row is not None  # noqa: S101  # a query of aggregates has one row
    return _Sample(row["share"], row["passages"], row["length"] or 0.0)


def _rows(table: str) -> str:
    return f"(SELECT greatest(reltuples, 1)::float8 FROM pg_class WHERE oid = '{table}'::regclass)"


def _sampled(table: str) -> str:
    return f"TABLESAMPLE SYSTEM (least(100, 100.0 * {_SAMPLE} / {_rows(table)})) REPEATABLE (0)"


def _share(table: str, condition: str) -> str:
    """Return the share of a whole table's rows, of which row-level security hides others'."""
    sampled = f"greatest(count(*), least({_SAMPLE}, {_rows(table)}))"
    return f"count(*) FILTER (WHERE {condition}) / {sampled}"


async def _rarer_hits(connection: Connection, scope: Scope, asked: Asked) -> tuple[Floats, Rows]:
    """Return how many hits each word has, and the hits of the rarer ones."""
    parameters = Parameters()
    index_id = parameters.add(asked.index_id, "smallint")
    of_term = (
        f"t.term = q.term AND {scope.namespace_in_range('t', parameters)} "
        f"AND t.index_id = {index_id}"
    )
    most = parameters.add(_COUNTED_HITS, "bigint")
    row = await connection.fetchrow(
        f"""
        WITH counted AS MATERIALIZED (
            SELECT place, term, hits FROM {asked.terms(parameters)} CROSS JOIN LATERAL (
                SELECT count(*) AS hits FROM (
                    SELECT FROM terms t WHERE {of_term} LIMIT {most}
                ) AS found
            ) AS found WHERE hits > 0
        ), rarer AS MATERIALIZED (
            SELECT place, term FROM (
                SELECT place, term, sum(hits) OVER rarest_first AS so_far,
                    row_number() OVER rarest_first AS rank
                FROM counted WINDOW rarest_first AS (ORDER BY hits, term)
            ) AS ordered
            WHERE rank = 1 OR so_far <= {parameters.add(_HITS, "bigint")}
        )
        SELECT (SELECT array_agg(place ORDER BY place) FROM counted) AS places, (
            SELECT array_agg(hits ORDER BY place) FROM counted
        ) AS counts, (
            SELECT {HITS.sql()} FROM rarer q CROSS JOIN LATERAL (
                SELECT * FROM terms t WHERE {of_term} LIMIT {most}
            ) AS t
        ) AS hits
        """,
        *parameters.values,
    )
    assert row is not None  # noqa: S101  # a query of scalars has one row
    passages_with = np.zeros(len(asked.words))
    for place, hits in zip(row["places"] or (), row["counts"] or (), strict=True):
        passages_with[asked.word_of_place[place]] += hits
    return passages_with, asked.hits(row["hits"])
