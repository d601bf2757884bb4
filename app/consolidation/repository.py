"""SQL on the memories to consolidate and the progress of consolidations, and its table."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain

from asyncpg import Record
from sqlalchemy import Column, PrimaryKeyConstraint, Table, Text

from app.changes.duplicates import to_memory
from app.consolidation.plan import ConsolidatePlan
from app.consolidation.scope import (
    FOREIGN,
    PINNED,
    ConsolidationScope,
    Similarity,
    StoredMemory,
)
from app.conversations.kinds import MESSAGE_KIND
from app.conversations.memories import Memory, MemoryFormat
from app.db.database import Connection, Row
from app.db.tables import BYTEWISE, TIME, metadata
from app.namespaces import Range, StoredNamespace
from app.store.repository import COLUMNS, read_item
from app.store.types import Item

consolidation_marks = Table(
    "consolidation_marks",
    metadata,
    Column("namespace", BYTEWISE, nullable=False, comment="Consolidated, with all below it."),
    Column("strategy", Text, nullable=False, comment="By which it was."),
    Column("consolidated_until", TIME, nullable=False, comment="Newest change looked at."),
    PrimaryKeyConstraint("namespace", "strategy"),
    comment="Up to where each namespace has been consolidated.",
)

_NEIGHBORS_BY_MEANING, _NEIGHBORS_BY_WORDS = 5, 3
"""Maximum neighbors of a memory, by each measure."""

_MIN_COSINE, _MIN_SHARED_WORDS = 0.3, 0.2
"""Minimum scores of neighbors; less similar memories are unrelated.

With MiniLM, contradicting facts had cosines of at least 0.48, unrelated ones 0.05. If whole values
are indexed, with their braces, all cosines are above 0.6, and only the number of neighbors is a
limit.
"""

_MAX_MEMORIES_OF_WORD = 50
"""Words in more memories than this do not make any of them neighbors."""

_MEMORIES_PER_STATEMENT = 20
"""Memories whose neighbors one statement finds, far below its time limit."""

# The first passage has the memory's vector; longer memories are compared by their beginning.
# Messages of a thread are left out: a conversation would not be the same without one of them.
_ROWS = f"""
SELECT embedding, uses, last_used_at,
    {", ".join(f"items.{column}" for column in COLUMNS.split(", "))}
FROM items LEFT JOIN passages ON passages.namespace = items.namespace
    AND passages.key = items.key AND index_id = $1 AND ordinal = 0
LEFT JOIN item_usage ON item_usage.namespace = items.namespace AND item_usage.item_id = items.id
WHERE (items.expires_at IS NULL OR items.expires_at > $2)
    AND (items.thread_id IS NULL OR items.value ->> 'kind' IS DISTINCT FROM '{MESSAGE_KIND}')
"""

_IN_SCOPE = "AND items.namespace >= $3 AND items.namespace < $4"

# Versions that a consolidation wrote are not compared again, except those of another strategy and,
# in a full run, of jobs before it.
_CHANGED = f"""
    ($5::timestamptz IS NULL OR items.updated_at > $5)
    AND NOT EXISTS (
        SELECT FROM job_changes JOIN jobs ON jobs.id = job_changes.job_id
        WHERE job_changes.namespace = items.namespace AND job_changes.key = items.key
            AND job_changes.version_after = items.version AND job_changes.state = 'applied'
            AND jobs.kind = '{ConsolidatePlan.job_kind}' AND jobs.request ->> 'strategy' = $6
            AND ($7::text IS NULL OR jobs.id >= $7)
    )
"""

# Stale memories were not changed themselves; a model looks at them again.
# With ties, because the mark is a time.
_FIND_CHANGED = f"""
{_ROWS} {_IN_SCOPE} AND (items.stale AND $6 = 'llm' OR {_CHANGED})
ORDER BY items.updated_at FETCH FIRST $8 ROWS WITH TIES
"""

_HAS_CHANGED = f"SELECT EXISTS ({_ROWS} {_IN_SCOPE} AND {_CHANGED})"

_FIND = f"{_ROWS} AND items.id = ANY($3) AND items.namespace = ANY($4)"

_BY_MEANING = """
SELECT one.item_id AS one, near.item_id AS other, 1 - min(near.distance) AS score
FROM items JOIN passages one ON one.namespace = items.namespace AND one.key = items.key
CROSS JOIN LATERAL (
    SELECT other.item_id, other.embedding <=> one.embedding AS distance FROM passages other
    WHERE other.namespace = $2 AND other.index_id = $1 AND other.item_id <> one.item_id
        AND other.embedding IS NOT NULL
    ORDER BY distance LIMIT $4
) AS near
WHERE items.namespace = $2 AND items.id = ANY($3)
    AND one.index_id = $1 AND one.ordinal = 0 AND one.embedding IS NOT NULL
GROUP BY 1, 2 HAVING 1 - min(near.distance) >= $5
"""

# The score is the share of a memory's words, weighted by rarity, that the other has, too.
_BY_WORDS = f"""
WITH mine AS (
    SELECT DISTINCT item_id, term FROM terms
    WHERE item_id = ANY($3) AND namespace = $2 AND index_id = $1
), total AS (
    SELECT count(*) AS items FROM items WHERE namespace = $2
), rarity AS (
    SELECT term, count(DISTINCT item_id) AS having_it,
        ln(1 + (SELECT items FROM total)::float8 / count(DISTINCT item_id)) AS weight
    FROM terms WHERE namespace = $2 AND index_id = $1 AND term IN (SELECT term FROM mine)
    GROUP BY term
), whole AS (
    SELECT item_id, sum(weight) AS weight FROM mine JOIN rarity USING (term) GROUP BY item_id
), shared AS (
    SELECT mine.item_id AS one, other.item_id AS other, sum(DISTINCT rarity.weight) AS weight
    FROM mine JOIN rarity USING (term) JOIN terms other USING (term)
    WHERE other.namespace = $2 AND other.index_id = $1 AND other.item_id <> mine.item_id
        AND rarity.having_it <= {_MAX_MEMORIES_OF_WORD}
    GROUP BY 1, 2
), ranked AS (
    SELECT one, other, shared.weight / whole.weight AS score,
        row_number() OVER (PARTITION BY one ORDER BY shared.weight DESC, other) AS place
    FROM shared JOIN whole ON whole.item_id = one
)
SELECT one, other, score FROM ranked WHERE place <= $4 AND score >= $5
"""

# An item's time is read in its transaction: transactions that still run may commit earlier times.
_SETTLED_UNTIL = """
SELECT coalesce(min(xact_start), clock_timestamp()) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'memoryd' AND pid <> pg_backend_pid()
"""

_FIND_MARK = """
SELECT consolidated_until FROM consolidation_marks WHERE namespace = $1 AND strategy = $2
"""

_SET_MARK = """
INSERT INTO consolidation_marks (namespace, strategy, consolidated_until) VALUES ($1, $2, $3)
ON CONFLICT (namespace, strategy) DO UPDATE SET consolidated_until = excluded.consolidated_until
"""


@dataclass(frozen=True, slots=True)
class ScopeFinder:
    """Finds the memories to consolidate in one passage index, at one time, for one strategy.

    `full_from` is the job with which a full run started, None if the run is not full.
    """

    index_id: int
    now: datetime
    strategy: str
    full_from: str | None

    async def find_changed(
        self, connection: Connection, namespaces: Range, since: datetime | None, *, limit: int
    ) -> ConsolidationScope:
        """Return up to `limit` memories that changed after `since`, oldest first, and neighbors.

        There are more than `limit` only if further ones changed at the same time as the last. At
        most `limit` neighbors are added.
        """
        settled: datetime = await connection.fetchval(_SETTLED_UNTIL)
        place = (self.index_id, self.now, namespaces.low, namespaces.high)
        strategy = (self.strategy, self.full_from)
        rows = await connection.fetch(_FIND_CHANGED, *place, since, *strategy, limit)
        if not rows:
            return ConsolidationScope({}, {}, frozenset())
        last: datetime = max(rows[-1]["updated_at"], since or rows[-1]["updated_at"])
        has_more: bool = await connection.fetchval(_HAS_CHANGED, *place, last, *strategy)
        changed: dict[StoredNamespace, list[int]] = defaultdict(list)
        for row in rows:
            changed[row["namespace"]].append(row["id"])
        similarities = {
            namespace: await self._find_similar(connection, namespace, ids)
            for namespace, ids in changed.items()
        }
        ids = frozenset(row["id"] for row in rows)
        neighbors = _nearest(chain.from_iterable(similarities.values()), ids, limit)
        rows += await connection.fetch(_FIND, self.index_id, self.now, neighbors, list(changed))
        memories: dict[StoredNamespace, list[StoredMemory]] = defaultdict(list)
        for row in rows:
            memories[row["namespace"]].append(_read_memory(row))
        until = min(last, settled)
        return ConsolidationScope(
            memories, similarities, ids, until, has_more, is_held=settled < last
        )

    async def _find_similar(
        self, connection: Connection, namespace: StoredNamespace, ids: Sequence[int]
    ) -> list[Similarity]:
        found: list[Record] = []
        for start in range(0, len(ids), _MEMORIES_PER_STATEMENT):
            some = (self.index_id, namespace, ids[start : start + _MEMORIES_PER_STATEMENT])
            found += await connection.fetch(_BY_MEANING, *some, _NEIGHBORS_BY_MEANING, _MIN_COSINE)
            found += await connection.fetch(
                _BY_WORDS, *some, _NEIGHBORS_BY_WORDS, _MIN_SHARED_WORDS
            )
        return [Similarity(row["one"], row["other"], min(row["score"], 1.0)) for row in found]


async def find_mark(
    connection: Connection, namespace: StoredNamespace, strategy: str
) -> datetime | None:
    """Return the time up to which a strategy has compared the changes in a namespace."""
    until: datetime | None = await connection.fetchval(_FIND_MARK, namespace, strategy)
    return until


async def set_mark(
    connection: Connection, namespace: StoredNamespace, strategy: str, until: datetime
) -> None:
    """Store the time up to which a strategy has compared the changes in a namespace."""
    await connection.execute(_SET_MARK, namespace, strategy, until)


def _read_memory(row: Row) -> StoredMemory:
    """Read a row of items with their uses and the vector of the first passage."""
    item = read_item(row)
    memory = to_memory(item, f"i{item.id}")
    embedding = row["embedding"]
    return StoredMemory(
        memory,
        item.id,
        item.created_at,
        item.updated_at,
        _protection(item, memory),
        item.ttl,
        None if embedding is None else embedding.to_numpy(),
        row["uses"] or 0,
        row["last_used_at"],
    )


def _protection(item: Item, memory: Memory) -> str | None:
    if item.metadata.pinned:
        return PINNED
    is_text = memory.content.keys() == {"content"}  # the format of LangMem's tools
    return FOREIGN if memory.format is MemoryFormat.VALUE and not is_text else None


def _nearest(similarities: Iterable[Similarity], known: Collection[int], limit: int) -> list[int]:
    """Return the items that are most similar to known ones."""
    ordered = sorted(similarities, key=lambda pair: -pair.score)
    others = dict.fromkeys(pair.other for pair in ordered if pair.other not in known)
    return list(others)[:limit]
