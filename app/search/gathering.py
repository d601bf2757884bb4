"""SQL that gathers what is ranked: of a whole scope, or of chosen items in it."""

from collections.abc import Sequence
from dataclasses import dataclass

from pgvector import HalfVector

from app.db import Connection, Row
from app.providers.embeddings.base import Vector
from app.search.lexical import Statistics, statistics_of
from app.search.pool import HIT, ITEM, PASSAGE, USE, Pool, packed, unpack
from app.search.scope import Scope
from app.sql import Parameters
from app.terms import QueryWord


@dataclass(frozen=True, slots=True)
class Asked:
    """What passages of an index are compared with: a vector, words, or both."""

    index_id: int
    vector: Vector | None
    words: Sequence[QueryWord]
    with_uses: bool = False

    def similarity(self, parameters: Parameters) -> str:
        """Return the similarity of `passages p`, NaN where there is nothing to compare."""
        if self.vector is None:
            return "'NaN'::float8"
        vector = parameters.add(HalfVector(self.vector), "halfvec")
        return f"coalesce(1 - (p.embedding <=> {vector}), 'NaN')"

    def terms(self, parameters: Parameters) -> str:
        """Return the table `q` of the terms to look for and the words they stand for."""
        pairs = [(place, term) for place, word in enumerate(self.words) for term in word.terms]
        words = parameters.add([place for place, _ in pairs], "smallint[]")
        terms = parameters.add([term for _, term in pairs], "text[]")
        return f"unnest({words}, {terms}) AS q (word, term)"


async def gather_scope(
    connection: Connection, scope: Scope, asked: Asked, *, largest: int
) -> tuple[Pool, Statistics] | None:
    """Return everything in a scope, or None if it holds more than `largest` items or passages.

    Three scans of one range each and no join: for a narrow range of namespaces the planner
    expects a single row, and would join thousands by a loop within a loop.
    """
    parameters = Parameters()
    index_id = parameters.add(asked.index_id, "smallint")
    of_passages = f"{scope.namespace_in_range('p', parameters)} AND p.index_id = {index_id}"
    limit = parameters.add(largest, "bigint")
    row = await connection.fetchrow(
        f"""
        WITH size AS MATERIALIZED (
            SELECT greatest(
                (SELECT count(*) FROM (
                    SELECT FROM passages p WHERE {of_passages} LIMIT {limit} + 1) AS counted),
                (SELECT count(*) FROM (
                    SELECT FROM items i WHERE {scope.namespace_in_range("i", parameters)}
                    LIMIT {limit} + 1) AS counted)
            ) <= {limit} AS fits
        )
        SELECT fits, (
            SELECT {packed(ITEM, passes=scope.passes(parameters))} FROM items i
            WHERE {scope.is_alive(parameters)} AND (SELECT fits FROM size)
        ) AS items, (
            SELECT {packed(PASSAGE, similarity=asked.similarity(parameters))} FROM passages p
            WHERE {of_passages} AND (SELECT fits FROM size)
        ) AS passages, (
            SELECT {packed(HIT)} FROM {asked.terms(parameters)}
            JOIN terms t ON t.term = q.term AND {scope.namespace_in_range("t", parameters)}
                AND t.index_id = {index_id}
            WHERE (SELECT fits FROM size)
        ) AS hits, (
            SELECT {packed(USE)} FROM item_usage u
            WHERE {parameters.add(asked.with_uses, "boolean")} AND (SELECT fits FROM size)
                AND {scope.namespace_in_range("u", parameters)}
        ) AS uses
        FROM size
        """,
        *parameters.values,
    )
    if row is None or not row["fits"]:
        return None
    statistics = statistics_of(
        unpack(PASSAGE, row["passages"]), unpack(HIT, row["hits"]), len(asked.words)
    )
    return _pool(row), statistics


async def gather_chosen(
    connection: Connection, scope: Scope, asked: Asked, item_ids: Sequence[int] | None
) -> Pool:
    """Return the items of a scope that are among `item_ids`, or all that pass its filter."""
    parameters = Parameters()
    index_id = parameters.add(asked.index_id, "smallint")
    passes = scope.passes(parameters)
    if item_ids is None:
        wanted = passes
    else:
        wanted = f"i.id = ANY({parameters.add(list(item_ids), 'bigint[]')})"
    row = await connection.fetchrow(
        f"""
        WITH chosen AS MATERIALIZED (
            SELECT * FROM items i WHERE {scope.is_alive(parameters)} AND {wanted}
        )
        SELECT (SELECT {packed(ITEM, passes=passes)} FROM chosen i) AS items, (
            SELECT {packed(PASSAGE, similarity=asked.similarity(parameters))}
            FROM chosen CROSS JOIN LATERAL (
                SELECT * FROM passages p WHERE p.namespace = chosen.namespace
                    AND p.key = chosen.key AND p.index_id = {index_id} OFFSET 0
            ) AS p
        ) AS passages, (
            SELECT {packed(HIT)} FROM chosen CROSS JOIN LATERAL (
                SELECT * FROM terms t WHERE t.item_id = chosen.id AND t.index_id = {index_id}
                OFFSET 0
            ) AS t JOIN {asked.terms(parameters)} USING (term)
        ) AS hits, (
            SELECT {packed(USE)} FROM chosen JOIN item_usage u
                ON u.namespace = chosen.namespace AND u.item_id = chosen.id
            WHERE {parameters.add(asked.with_uses, "boolean")}
        ) AS uses
        """,
        *parameters.values,
    )
    assert row is not None  # noqa: S101  # a query of scalars has one row
    return _pool(row)


def _pool(row: Row) -> Pool:
    return Pool.of(
        unpack(ITEM, row["items"]),
        unpack(PASSAGE, row["passages"]),
        unpack(HIT, row["hits"]),
        unpack(USE, row["uses"]),
    )
