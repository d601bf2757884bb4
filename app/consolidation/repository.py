"""What a consolidation looks at: the memories that changed and those near them. All its SQL."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain

from asyncpg import Record

from app.consolidation.batches import StoredMemory, Tie
from app.consolidation.plan import ConsolidatePlan
from app.conversations.kinds import MESSAGE_KIND
from app.db.database import Connection
from app.namespaces import Range
from app.store.repository import COLUMNS

_NEAREST, _WORDED = 5, 3
"""Neighbours of a memory by meaning and by words."""

_LEAST_SIMILAR, _LEAST_WORDED = 0.3, 0.2
"""Below them, memories have nothing to do with one another.

With MiniLM, facts of which one makes another untrue had cosines of 0.48 and more, unrelated ones
0.05. Where whole values are indexed, with their braces, all have more than 0.6, and only the
number of neighbours is a limit.
"""

_COMMON = 50
"""Words in more memories than these bring none of them together."""

_AT_ONCE = 20
"""Memories whose neighbours are sought in one statement, far below its time limit."""

# The first passage has the memory's vector; longer memories are compared by their beginning.
# A message has its place in a conversation, which goes on without it in another way.
_ROWS = f"""
SELECT embedding, uses, last_used_at,
    {", ".join(f"items.{column}" for column in COLUMNS.split(", "))}
FROM items LEFT JOIN passages ON passages.namespace = items.namespace
    AND passages.key = items.key AND index_id = $1 AND ordinal = 0
LEFT JOIN item_usage ON item_usage.namespace = items.namespace AND item_usage.item_id = items.id
WHERE (items.expires_at IS NULL OR items.expires_at > $2)
    AND (items.thread_id IS NULL OR items.value ->> 'kind' IS DISTINCT FROM '{MESSAGE_KIND}')
"""

# What a consolidation wrote, it has looked at; but not one of another strategy, nor, where
# everything is looked at, one that was submitted before.
_CHANGED = f"""
    AND items.namespace >= $3 AND items.namespace < $4
    AND ($5::timestamptz IS NULL OR items.updated_at > $5)
    AND NOT EXISTS (
        SELECT FROM job_changes JOIN jobs ON jobs.id = job_changes.job_id
        WHERE job_changes.namespace = items.namespace AND job_changes.key = items.key
            AND job_changes.version_after = items.version AND job_changes.state = 'applied'
            AND jobs.kind = '{ConsolidatePlan.job_kind}' AND jobs.request ->> 'strategy' = $6
            AND ($7::text IS NULL OR jobs.id >= $7)
    )
"""

# With all that have the last one's time, because the mark is a time.
_FIND_CHANGED = f"""
{_ROWS} {_CHANGED} ORDER BY items.updated_at FETCH FIRST $8 ROWS WITH TIES
"""

_HAS_CHANGED = f"SELECT EXISTS ({_ROWS} {_CHANGED})"

_FIND = f"{_ROWS} AND items.id = ANY($3) AND items.namespace = ANY($4)"

_BY_MEANING = """
SELECT one.item_id AS one, near.item_id AS other, 1 - min(near.distance) AS strength
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

# The strength is the share of a memory's words, by rarity, that the other has too.
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
        AND rarity.having_it <= {_COMMON}
    GROUP BY 1, 2
), ranked AS (
    SELECT one, other, shared.weight / whole.weight AS strength,
        row_number() OVER (PARTITION BY one ORDER BY shared.weight DESC, other) AS place
    FROM shared JOIN whole ON whole.item_id = one
)
SELECT one, other, strength FROM ranked WHERE place <= $4 AND strength >= $5
"""

# An item's time is taken in its transaction: those still running may yet commit earlier ones.
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

_ADD_USES = """
INSERT INTO item_usage AS present (namespace, item_id, uses, last_used_at)
SELECT namespace, item_id, sum(uses), max(last_used_at)
FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::timestamptz[])
    AS more (namespace, item_id, uses, last_used_at)
GROUP BY namespace, item_id
ON CONFLICT (namespace, item_id) DO UPDATE SET uses = present.uses + excluded.uses,
    last_used_at = greatest(present.last_used_at, excluded.last_used_at)
"""


@dataclass(frozen=True, slots=True)
class Looked:
    """Memories by their namespaces with what ties them, and how far this has come.

    `until` is the mark to set when they were dealt with, None where nothing changed; `remaining`
    says whether more has changed behind them, `held` whether writers under way keep the mark back.
    """

    memories: Mapping[str, list[StoredMemory]]
    ties: Mapping[str, list[Tie]]
    changed: frozenset[int]
    until: datetime | None = None
    remaining: bool = False
    held: bool = False

    @property
    def all(self) -> list[StoredMemory]:
        """The memories of all namespaces."""
        return [memory for memories in self.memories.values() for memory in memories]


@dataclass(frozen=True, slots=True)
class Lookout:
    """Finds memories as one passage index has them, at one moment, for one strategy.

    `everything_from` is the job with which looking at everything began, None where it did not.
    """

    index_id: int
    now: datetime
    strategy: str
    everything_from: str | None

    async def look(
        self, connection: Connection, scope: Range, since: datetime | None, *, limit: int
    ) -> Looked:
        """Return the memories at or below a namespace that changed after `since`, oldest first.

        At most `limit`, more only where further ones changed at the same moment as the last; and
        at most `limit` others that are near them.
        """
        settled: datetime = await connection.fetchval(_SETTLED_UNTIL)
        where = (self.index_id, self.now, scope.low, scope.high)
        which = (self.strategy, self.everything_from)
        rows = await connection.fetch(_FIND_CHANGED, *where, since, *which, limit)
        if not rows:
            return Looked({}, {}, frozenset())
        last: datetime = rows[-1]["updated_at"]
        remaining: bool = await connection.fetchval(_HAS_CHANGED, *where, last, *which)
        changed: dict[str, list[int]] = defaultdict(list)
        for row in rows:
            changed[row["namespace"]].append(row["id"])
        ties = {
            namespace: await self._ties(connection, namespace, ids)
            for namespace, ids in changed.items()
        }
        ids = frozenset(row["id"] for row in rows)
        near = _nearest(chain.from_iterable(ties.values()), ids, limit)
        rows += await connection.fetch(_FIND, self.index_id, self.now, near, list(changed))
        memories: dict[str, list[StoredMemory]] = defaultdict(list)
        for row in rows:
            memories[row["namespace"]].append(StoredMemory.of_row(row))
        return Looked(memories, ties, ids, min(last, settled), remaining, held=settled < last)

    async def _ties(self, connection: Connection, namespace: str, ids: Sequence[int]) -> list[Tie]:
        found: list[Record] = []
        for start in range(0, len(ids), _AT_ONCE):
            near = (self.index_id, namespace, ids[start : start + _AT_ONCE])
            found += await connection.fetch(_BY_MEANING, *near, _NEAREST, _LEAST_SIMILAR)
            found += await connection.fetch(_BY_WORDS, *near, _WORDED, _LEAST_WORDED)
        return [Tie(row["one"], row["other"], min(row["strength"], 1.0)) for row in found]


def _nearest(ties: Iterable[Tie], known: Collection[int], limit: int) -> list[int]:
    """Return the items with the strongest ties to those that are known."""
    strongest = sorted(ties, key=lambda tie: -tie.strength)
    others = dict.fromkeys(tie.other for tie in strongest if tie.other not in known)
    return list(others)[:limit]


async def find_mark(connection: Connection, namespace: str, strategy: str) -> datetime | None:
    """Return up to when a strategy has looked at the changes of a namespace."""
    until: datetime | None = await connection.fetchval(_FIND_MARK, namespace, strategy)
    return until


async def set_mark(connection: Connection, namespace: str, strategy: str, until: datetime) -> None:
    """Keep up to when a strategy has looked at the changes of a namespace."""
    await connection.execute(_SET_MARK, namespace, strategy, until)


async def name_follow_up(connection: Connection, job_id: str, follow_up: str) -> None:
    """Add to a job's result which job goes on."""
    await connection.execute(
        "UPDATE jobs SET result = result || jsonb_build_object('follow_up_job_id', $2::text) "
        "WHERE id = $1",
        job_id,
        follow_up,
    )


async def add_uses(
    connection: Connection, merged: Sequence[tuple[StoredMemory, StoredMemory]]
) -> None:
    """Count uses of memories as uses of those, before them, that they became one with."""
    used = [(kept, ended) for kept, ended in merged if ended.uses]
    await connection.execute(
        _ADD_USES,
        [kept.existing.namespace for kept, _ in used],
        [kept.item_id for kept, _ in used],
        [ended.uses for _, ended in used],
        [ended.last_used_at for _, ended in used],
    )
