"""SQL that gathers what is ranked: of a whole scope, or of chosen items in it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pgvector import HalfVector

from app.db.database import Connection
from app.db.sql import Parameters
from app.indexing.terms import QueryWord
from app.providers.embeddings.base import Vector
from app.search.lexical import Statistics, statistics_of
from app.search.packing import HITS, ITEMS, PASSAGES, USES, Rows
from app.search.pool import Pool
from app.search.scope import Scope

_SEPARATOR = "\x1f"
"""Between terms, which hold no control characters."""


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
        """Return the table `q` of the terms to look for and their places, read by `hits`."""
        terms = _SEPARATOR.join(term for word in self.words for term in word.terms)
        # One text, because the driver looks closely at every member of a list.
        listed = f"string_to_table({parameters.add(terms, 'text')}, '{_SEPARATOR}')"
        return f"{listed} WITH ORDINALITY AS q (term, place)"

    @property
    def word_of_place(self) -> list[int]:
        """Return the number of the word that the term at each place, from 1, stands for."""
        return [0, *(number for number, word in enumerate(self.words) for _ in word.terms)]

    def hits(self, data: bytes | None) -> Rows:
        """Return packed hits, with the words that their terms stand for."""
        hits = HITS.unpack(data)
        hits["word"] = np.array(self.word_of_place)[hits["word"]]
        return hits


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
            SELECT {ITEMS.sql(passes=scope.passes(parameters))} FROM items i
            WHERE {scope.is_alive(parameters)} AND (SELECT fits FROM size)
        ) AS items, (
            SELECT {PASSAGES.sql(similarity=asked.similarity(parameters))} FROM passages p
            WHERE {of_passages} AND (SELECT fits FROM size)
        ) AS passages, (
            SELECT {HITS.sql()} FROM {asked.terms(parameters)}
            JOIN terms t ON t.term = q.term AND {scope.namespace_in_range("t", parameters)}
                AND t.index_id = {index_id}
            WHERE (SELECT fits FROM size)
        ) AS hits, (
            SELECT {USES.sql()} FROM item_usage u
            WHERE {parameters.add(asked.with_uses, "boolean")} AND (SELECT fits FROM size)
                AND {scope.namespace_in_range("u", parameters)}
        ) AS uses
        FROM size
        """,
        *parameters.values,
    )
    if row is None or not row["fits"]:
        return None
    passages, hits = PASSAGES.unpack(row["passages"]), asked.hits(row["hits"])
    pool = Pool.of(ITEMS.unpack(row["items"]), passages, hits, USES.unpack(row["uses"]))
    return pool, statistics_of(passages, hits, len(asked.words))


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
        SELECT (SELECT {ITEMS.sql(passes=passes)} FROM chosen i) AS items, (
            SELECT {PASSAGES.sql(similarity=asked.similarity(parameters))}
            FROM chosen CROSS JOIN LATERAL (
                SELECT * FROM passages p WHERE p.namespace = chosen.namespace
                    AND p.key = chosen.key AND p.index_id = {index_id} OFFSET 0
            ) AS p
        ) AS passages, (
            SELECT {HITS.sql()} FROM chosen CROSS JOIN LATERAL (
                SELECT * FROM terms t WHERE t.item_id = chosen.id AND t.index_id = {index_id}
                OFFSET 0
            ) AS t JOIN {asked.terms(parameters)} USING (term)
        ) AS hits, (
            SELECT {USES.sql()} FROM chosen JOIN item_usage u
                ON u.namespace = chosen.namespace AND u.item_id = chosen.id
            WHERE {parameters.add(asked.with_uses, "boolean")}
        ) AS uses
        """,
        *parameters.values,
    )
    assert row is not None  # noqa: S101  # a query of scalars has one row
    return Pool.of(
        ITEMS.unpack(row["items"]),
        PASSAGES.unpack(row["passages"]),
        asked.hits(row["hits"]),
        USES.unpack(row["uses"]),
    )
