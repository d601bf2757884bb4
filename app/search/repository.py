"""All SQL of search; every function runs on a connection that its caller opened."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from asyncpg import Record
from pgvector import HalfVector

from app.db.database import Connection, Parameters
from app.db.pages import Page, fetch_page
from app.indexing.passages import QUESTIONS
from app.providers.embedder import Vector
from app.search.candidate_set import HITS, ITEMS, PASSAGES, USES, CandidateSet, Floats, Rows
from app.search.plan import ListingPlan, Scope, ScoringQuery
from app.search.scoring import Statistics, count_statistics
from app.store.filter_sql import to_sql
from app.store.repository import COLUMNS, read_item
from app.store.types import Item

_SEPARATOR = "\x1f"
"""Between terms, which contain no control characters."""

_MIN_EF_SEARCH = 200
"""Candidates the index keeps in view; with 100, recall@10 over 100,000 passages was 0.950."""

_MAX_EF_SEARCH = 1000
"""pgvector's limit."""

_MOST_PINNED = 1000
"""Pinned items read; a page holds no more."""

_NEIGHBORS = 2
"""Turns before and after a candidate that are ranked with it, the reach of conversation context."""

_SAMPLED_ROWS = 2_000
"""Rows of a sample: about a millisecond, whatever the table's size."""

_COUNTED_HITS = 100_000
"""Maximum hits of a term that are counted: about two milliseconds by the index alone."""

_READ_HITS = 20_000
"""Hits read to find passages by, the rarest terms' first: they matter most, and take 10 ms."""

_SORT_TYPES = {"updated_at": "timestamptz", "created_at": "timestamptz", "key": "text"}

_PASSAGE_COLUMN = """
SELECT p.path, p.{column}
FROM unnest($2::bigint[], $3::int[]) WITH ORDINALITY AS wanted (id, ordinal, place)
LEFT JOIN (items i JOIN passages p ON p.namespace = i.namespace AND p.key = i.key
    AND p.index_id = $1) ON i.id = wanted.id AND p.ordinal = wanted.ordinal
ORDER BY place
"""


@dataclass(frozen=True, slots=True)
class ScopeSample:
    """Estimates from a sample: the scope's share of all items, its passages, their mean length."""

    share: float
    passages: float
    average_length: float


def _in_namespaces(scope: Scope, alias: str, parameters: Parameters) -> str:
    """Return the condition on the namespace of any table that has one."""
    low = parameters.add(scope.namespaces.low, "text")
    high = parameters.add(scope.namespaces.high, "text")
    return f"{alias}.namespace >= {low} AND {alias}.namespace < {high}"


def _in_scope(scope: Scope, parameters: Parameters) -> str:
    """Return the whole condition on a row of `items i`."""
    return f"{is_alive(scope, parameters)} AND {_passes(scope, parameters)}"


def is_alive(scope: Scope, parameters: Parameters) -> str:
    """Return the condition that an item is in the namespaces and has not expired."""
    in_namespaces = _in_namespaces(scope, "i", parameters)
    if scope.with_expired:
        return in_namespaces
    now = parameters.add(scope.now, "timestamptz")
    return f"{in_namespaces} AND (i.expires_at IS NULL OR i.expires_at > {now})"


def _passes(scope: Scope, parameters: Parameters) -> str:
    """Return the condition that an item is valid at the given time and passes the filter."""
    conditions = ["true"]
    if scope.valid_at is not None:
        moment = parameters.add(scope.valid_at, "timestamptz")
        conditions.append(f"(i.valid_from IS NULL OR i.valid_from <= {moment})")
        conditions.append(f"(i.valid_to IS NULL OR i.valid_to > {moment})")
    if scope.filter is not None:
        conditions.append(f"({to_sql(scope.filter, parameters)})")
    return " AND ".join(conditions)


def _item_rows(query: ScoringQuery, passes: str, parameters: Parameters) -> str:
    """Return the aggregate of `items i`, with the factors by the classes of their sources."""
    factor = "1"
    if query.class_weights:
        classes = parameters.add(list(query.class_weights), "text[]")
        weights = parameters.add(list(query.class_weights.values()), "float4[]")
        factor = f"coalesce(({weights})[array_position({classes}, i.source_class)], 1)"
    return ITEMS.sql(passes=passes, factor=factor)


def _similarity(query: ScoringQuery, parameters: Parameters) -> str:
    """Return the similarity of `passages p`, NaN if there is no vector to compare."""
    if query.vector is None:
        return "'NaN'::float8"
    vector = parameters.add(HalfVector(query.vector), "halfvec")
    return f"coalesce(1 - (p.embedding <=> {vector}), 'NaN')"


def _terms(query: ScoringQuery, parameters: Parameters) -> str:
    """Return the table `q` of the terms to look for and their places."""
    terms = _SEPARATOR.join(term for word in query.words for term in word.terms)
    # One text, because the driver inspects every member of a list.
    listed = f"string_to_table({parameters.add(terms, 'text')}, '{_SEPARATOR}')"
    return f"{listed} WITH ORDINALITY AS q (term, place)"


def _read_hits(query: ScoringQuery, data: bytes | None) -> Rows:
    """Return hits with the numbers of their words in place of the places of their terms."""
    hits = HITS.read(data)
    hits["word"] = np.array(query.word_of_place)[hits["word"]]
    return hits


async def fetch_scope(
    connection: Connection, scope: Scope, query: ScoringQuery, *, largest: int
) -> tuple[CandidateSet, Statistics] | None:
    """Return everything in a scope, or None if it holds more than `largest` items or passages.

    Three scans of one range each and no join: for a narrow range of namespaces the planner
    expects a single row, and would join thousands by a loop within a loop.
    """
    parameters = Parameters()
    index_id = parameters.add(query.index_id, "smallint")
    of_passages = f"{_in_namespaces(scope, 'p', parameters)} AND p.index_id = {index_id}"
    limit = parameters.add(largest, "bigint")
    row = await connection.fetchrow(
        f"""
        WITH size AS MATERIALIZED (
            SELECT greatest(
                (SELECT count(*) FROM (
                    SELECT FROM passages p WHERE {of_passages} LIMIT {limit} + 1) AS counted),
                (SELECT count(*) FROM (
                    SELECT FROM items i WHERE {_in_namespaces(scope, "i", parameters)}
                    LIMIT {limit} + 1) AS counted)
            ) <= {limit} AS fits
        )
        SELECT fits, (
            SELECT {_item_rows(query, _passes(scope, parameters), parameters)} FROM items i
            WHERE {is_alive(scope, parameters)} AND (SELECT fits FROM size)
        ) AS items, (
            SELECT {PASSAGES.sql(similarity=_similarity(query, parameters))} FROM passages p
            WHERE {of_passages} AND (SELECT fits FROM size)
        ) AS passages, (
            SELECT {HITS.sql()} FROM {_terms(query, parameters)}
            JOIN terms t ON t.term = q.term AND {_in_namespaces(scope, "t", parameters)}
                AND t.index_id = {index_id}
            WHERE (SELECT fits FROM size)
        ) AS hits, (
            SELECT {USES.sql()} FROM item_usage u
            WHERE {parameters.add(query.with_uses, "boolean")} AND (SELECT fits FROM size)
                AND {_in_namespaces(scope, "u", parameters)}
        ) AS uses
        FROM size
        """,
        *parameters.values,
    )
    if row is None or not row["fits"]:
        return None
    passages, hits = PASSAGES.read(row["passages"]), _read_hits(query, row["hits"])
    candidates = CandidateSet.of(ITEMS.read(row["items"]), passages, hits, USES.read(row["uses"]))
    return candidates, count_statistics(passages, hits, len(query.words))


async def fetch_candidates(
    connection: Connection, scope: Scope, query: ScoringQuery, item_ids: Sequence[int] | None
) -> CandidateSet:
    """Return the items of a scope that are among `item_ids`, or all that pass its filter."""
    parameters = Parameters()
    index_id = parameters.add(query.index_id, "smallint")
    passes = _passes(scope, parameters)
    if item_ids is None:
        wanted = passes
    else:
        wanted = f"i.id = ANY({parameters.add(list(item_ids), 'bigint[]')})"
    row = await connection.fetchrow(
        f"""
        WITH chosen AS MATERIALIZED (
            SELECT * FROM items i WHERE {is_alive(scope, parameters)} AND {wanted}
        )
        SELECT (SELECT {_item_rows(query, passes, parameters)} FROM chosen i) AS items, (
            SELECT {PASSAGES.sql(similarity=_similarity(query, parameters))}
            FROM chosen CROSS JOIN LATERAL (
                SELECT * FROM passages p WHERE p.namespace = chosen.namespace
                    AND p.key = chosen.key AND p.index_id = {index_id} OFFSET 0
            ) AS p
        ) AS passages, (
            SELECT {HITS.sql()} FROM chosen CROSS JOIN LATERAL (
                SELECT * FROM terms t WHERE t.item_id = chosen.id AND t.index_id = {index_id}
                OFFSET 0
            ) AS t JOIN {_terms(query, parameters)} USING (term)
        ) AS hits, (
            SELECT {USES.sql()} FROM chosen JOIN item_usage u
                ON u.namespace = chosen.namespace AND u.item_id = chosen.id
            WHERE {parameters.add(query.with_uses, "boolean")}
        ) AS uses
        """,
        *parameters.values,
    )
    assert row is not None  # noqa: S101  # a query of scalars has one row
    return CandidateSet.of(
        ITEMS.read(row["items"]),
        PASSAGES.read(row["passages"]),
        _read_hits(query, row["hits"]),
        USES.read(row["uses"]),
    )


async def find_nearest(
    connection: Connection, scope: Scope, query: ScoringQuery, *, passages: int
) -> list[int]:
    """Return the items of the nearest passages, an item once for each of its passages.

    Fewer than `passages` means that the index gave up or the scope has no more.
    """
    if query.vector is None:
        return []
    async with connection.transaction():
        return await _find_nearest(connection, scope, query, query.vector, passages)


async def _find_nearest(
    connection: Connection, scope: Scope, query: ScoringQuery, vector: Vector, passages: int
) -> list[int]:
    # A plan that sorts would read the whole scope; without sorting only the HNSW index delivers
    # the order, and it continues (iterative scan) until enough rows have passed the conditions.
    await connection.execute(
        "SELECT set_config('enable_sort', 'off', true), "
        "set_config('hnsw.ef_search', $1::int::text, true)",
        min(max(passages, _MIN_EF_SEARCH), _MAX_EF_SEARCH),
    )
    parameters = Parameters()
    # PostgreSQL matches the partial index by these two integers, so they are literals.
    index_id, dimensions = int(query.index_id), len(vector)
    nearest_to = parameters.add(HalfVector(vector), f"halfvec({dimensions})")
    rows = await connection.fetch(
        f"""
        SELECT p.item_id
        FROM passages p JOIN items i ON i.namespace = p.namespace AND i.key = p.key
        WHERE p.index_id = {index_id} AND {_in_scope(scope, parameters)}
            AND {_in_namespaces(scope, "p", parameters)}
        ORDER BY p.embedding::halfvec({dimensions}) <=> {nearest_to}
        LIMIT {parameters.add(passages, "bigint")}
        """,
        *parameters.values,
    )
    return [row["item_id"] for row in rows]


async def find_neighbors(connection: Connection, item_ids: Iterable[int]) -> list[int]:
    """Return these items and their neighbors in their threads."""
    rows = await connection.fetch(
        """
        SELECT DISTINCT neighbor.id FROM items i CROSS JOIN LATERAL (
            (SELECT n.id FROM items n
            WHERE n.namespace = i.namespace AND n.thread_id = i.thread_id
                AND n.position <= i.position
            ORDER BY n.position DESC LIMIT $2)
            UNION ALL
            (SELECT n.id FROM items n
            WHERE n.namespace = i.namespace AND n.thread_id = i.thread_id
                AND n.position >= i.position
            ORDER BY n.position LIMIT $2)
        ) AS neighbor
        WHERE i.id = ANY($1::bigint[]) AND i.thread_id IS NOT NULL AND i.position IS NOT NULL
        """,
        list(item_ids),
        _NEIGHBORS + 1,
    )
    return [row["id"] for row in rows]


async def find_pinned(connection: Connection, scope: Scope) -> list[int]:
    """Return the pinned items of a scope, the most recently updated first."""
    parameters = Parameters()
    rows = await connection.fetch(
        f"SELECT i.id FROM items i WHERE i.pinned AND {is_alive(scope, parameters)} "
        f"ORDER BY i.updated_at DESC LIMIT {_MOST_PINNED}",
        *parameters.values,
    )
    return [row["id"] for row in rows]


async def filter_ids(connection: Connection, scope: Scope, item_ids: list[int]) -> list[int]:
    """Return the items that pass a scope's filter, in the given order."""
    if scope.is_unfiltered:
        return item_ids
    parameters = Parameters()
    rows = await connection.fetch(
        f"SELECT i.id FROM items i WHERE i.id = ANY({parameters.add(item_ids, 'bigint[]')}) "
        f"AND {_in_scope(scope, parameters)}",
        *parameters.values,
    )
    kept = {row["id"] for row in rows}
    return [item_id for item_id in item_ids if item_id in kept]


async def sample_scope(connection: Connection, scope: Scope, index_id: int) -> ScopeSample:
    """Estimate a scope's size from a sample of the tables."""
    parameters = Parameters()
    index = parameters.add(index_id, "smallint")
    is_passage = f"{_in_namespaces(scope, 'p', parameters)} AND p.index_id = {index}"
    row = await connection.fetchrow(
        f"""
        SELECT (
            SELECT {_share("items", _in_scope(scope, parameters))} FROM items i {_sampled("items")}
        ) AS share, {_share("passages", is_passage)} * {_rows("passages")} AS passages,
            coalesce(avg(p.length) FILTER (WHERE {is_passage}), avg(p.length))::float8 AS length
        FROM passages p {_sampled("passages")}
        """,
        *parameters.values,
    )
    assert row is not None  # noqa: S101  # a query of aggregates has one row
    return ScopeSample(row["share"], row["passages"], row["length"] or 0.0)


def _rows(table: str) -> str:
    return f"(SELECT greatest(reltuples, 1)::float8 FROM pg_class WHERE oid = '{table}'::regclass)"


def _sampled(table: str) -> str:
    percent = f"least(100, 100.0 * {_SAMPLED_ROWS} / {_rows(table)})"
    return f"TABLESAMPLE SYSTEM ({percent}) REPEATABLE (0)"


def _share(table: str, condition: str) -> str:
    """Return the share of all rows of a table, although row-level security hides some."""
    sampled = f"greatest(count(*), least({_SAMPLED_ROWS}, {_rows(table)}))"
    return f"count(*) FILTER (WHERE {condition}) / {sampled}"


async def fetch_rare_hits(
    connection: Connection, scope: Scope, query: ScoringQuery
) -> tuple[Floats, Rows]:
    """Return how many hits each word has, and the hits of the rarer ones."""
    parameters = Parameters()
    index_id = parameters.add(query.index_id, "smallint")
    of_term = (
        f"t.term = q.term AND {_in_namespaces(scope, 't', parameters)} AND t.index_id = {index_id}"
    )
    most = parameters.add(_COUNTED_HITS, "bigint")
    row = await connection.fetchrow(
        f"""
        WITH counted AS MATERIALIZED (
            SELECT place, term, hits FROM {_terms(query, parameters)} CROSS JOIN LATERAL (
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
            WHERE rank = 1 OR so_far <= {parameters.add(_READ_HITS, "bigint")}
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
    passages_with = np.zeros(len(query.words))
    for place, hits in zip(row["places"] or (), row["counts"] or (), strict=True):
        passages_with[query.word_of_place[place]] += hits
    return passages_with, _read_hits(query, row["hits"])


async def fetch_listing(connection: Connection, plan: ListingPlan, max_bytes: int) -> Page[Item]:
    """Return a page of a scope's items in the order of the plan."""
    column, descending = plan.column, plan.sort.startswith("-")
    parameters = Parameters()
    condition = _in_scope(plan.scope, parameters)
    if plan.cursor is not None:
        last = parameters.add(plan.cursor.value, _SORT_TYPES[column])
        place = f"({last}, {parameters.add(plan.cursor.item_id, 'bigint')})"
        condition += f" AND (i.{column}, i.id) {'<' if descending else '>'} {place}"
    direction = "DESC" if descending else "ASC"
    page = await fetch_page(
        connection,
        f"SELECT {COLUMNS}, value_bytes AS bytes FROM items i WHERE {condition} "
        f"ORDER BY i.{column} {direction}, i.id {direction} "
        f"LIMIT {parameters.add(plan.page.limit + 1, 'bigint')} "
        f"OFFSET {parameters.add(plan.page.offset, 'bigint')}",
        *parameters.values,
        limit=plan.page.limit,
        max_bytes=max_bytes,
    )
    return page.map(read_item)


async def fetch_items(
    connection: Connection, scope: Scope, item_ids: Sequence[int], max_bytes: int
) -> Page[Item]:
    """Return the first of these items that fit; an item that was deleted since is missing."""
    parameters = Parameters()
    ids = parameters.add(list(item_ids), "bigint[]")
    page = await fetch_page(
        connection,
        f"SELECT {COLUMNS}, value_bytes AS bytes "
        f"FROM unnest({ids}) WITH ORDINALITY AS wanted (id, place) JOIN items i USING (id) "
        f"WHERE {_in_namespaces(scope, 'i', parameters)} ORDER BY wanted.place",
        *parameters.values,
        limit=len(item_ids),
        max_bytes=max_bytes,
    )
    return page.map(read_item)


async def count_items(
    connection: Connection, scope: Scope, words: ScoringQuery | None = None
) -> int:
    """Return how many items a scope holds, or how many of those match at least one of the words."""
    parameters = Parameters()
    condition = _in_scope(scope, parameters)
    if words is not None:
        in_scope = _in_namespaces(scope, "t", parameters)
        condition += (
            f" AND i.id IN (SELECT t.item_id FROM {_terms(words, parameters)} JOIN terms t "
            f"ON t.term = q.term AND {in_scope} "
            f"AND t.index_id = {parameters.add(words.index_id, 'smallint')})"
        )
    counted = await connection.fetchval(
        f"SELECT count(*) FROM items i WHERE {condition}", *parameters.values
    )
    return int(counted)


async def fetch_passage_texts(
    connection: Connection, index_id: int, passages: Sequence[tuple[int, int]]
) -> list[str | None]:
    """Return the texts of passages, given as item ids and ordinals; None for a question."""
    rows = await _fetch_passage_column(connection, "text", index_id, passages)
    return [None if row["path"] == QUESTIONS else row["text"] for row in rows]


async def fetch_passage_vectors(
    connection: Connection, index_id: int, passages: Sequence[tuple[int, int]]
) -> Floats:
    """Return the unit vectors of passages as rows; zeros for passages without one."""
    rows = await _fetch_passage_column(connection, "embedding", index_id, passages)
    vectors = [None if row["embedding"] is None else row["embedding"].to_numpy() for row in rows]
    width = max((len(vector) for vector in vectors if vector is not None), default=1)
    blank = np.zeros(width)
    return np.array([blank if vector is None else vector for vector in vectors], np.float64)


async def _fetch_passage_column(
    connection: Connection, column: str, index_id: int, passages: Sequence[tuple[int, int]]
) -> list[Record]:
    item_ids, ordinals = zip(*passages, strict=True) if passages else ((), ())
    sql = _PASSAGE_COLUMN.format(column=column)
    return await connection.fetch(sql, index_id, list(item_ids), list(ordinals))
