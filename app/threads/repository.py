"""All SQL of threads and their messages.

An appending transaction holds its thread's row from the first statement to its end, so that the
positions of messages have no gaps and every reader sees a whole number of requests.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from asyncpg import Record

from app.db.database import Connection, Row
from app.db.pages import fetch_page
from app.pagination import Page
from app.threads.formation import ThreadExtractPlan

Ref: TypeAlias = tuple[str, str, str]
"""A thread's identity: the root of its key, its id, and its stored namespace.

Clients choose the id, so it may name different threads in different namespaces.
"""

_HOLD = """
INSERT INTO threads (root, id, namespace, created_at, updated_at) VALUES ($1, $2, $3, $4, $4)
ON CONFLICT (root, id, namespace) DO UPDATE SET updated_at = excluded.updated_at
RETURNING *
"""

_FIND = "SELECT * FROM threads WHERE root = $1 AND id = $2 AND namespace = $3"

_FIND_NAMED = "SELECT * FROM threads WHERE root = $1 AND id = $2"

_FORM = """
UPDATE threads SET next_position = $4, waiting_since = $5, formation = $6
WHERE root = $1 AND id = $2 AND namespace = $3
"""

_DELETE = "DELETE FROM threads WHERE root = $1 AND id = $2 AND namespace = $3"

_INSERT_MESSAGES = """
INSERT INTO thread_messages (
    root, thread_id, position, namespace, message_id, message, created_at
)
SELECT $1, $2, position, $3, message_id, message::jsonb, $4
FROM unnest($5::bigint[], $6::text[], $7::text[]) AS sent (position, message_id, message)
"""

_FIND_KNOWN = """
SELECT message_id, message FROM thread_messages
WHERE root = $1 AND thread_id = $2 AND namespace = $3 AND message_id = ANY ($4::text[])
"""

_FIND_MESSAGES = """
SELECT position, message, created_at FROM thread_messages
WHERE root = $1 AND thread_id = $2 AND namespace = $3 AND position >= $4 AND position < $5
ORDER BY position
"""

_FIND_PAGE = _FIND_MESSAGES.replace("created_at FROM", "created_at, message_bytes AS bytes FROM")

# As many messages as their JSON has room for: from a position on, at least one; or back from it.
_FIND_NEXT = """
SELECT position, message FROM (
    SELECT position, message::text AS message,
        sum(length(message::text)) OVER (ORDER BY position) - length(message::text) AS taken
    FROM thread_messages
    WHERE root = $1 AND thread_id = $2 AND namespace = $3 AND position >= $4 AND position < $5
) AS found WHERE taken < $6 ORDER BY position
"""
_FIND_BEFORE = """
SELECT position, message FROM (
    SELECT position, message::text AS message,
        sum(length(message::text)) OVER (ORDER BY position DESC) AS taken
    FROM thread_messages
    WHERE root = $1 AND thread_id = $2 AND namespace = $3 AND position >= $4 AND position < $5
) AS found WHERE taken <= $6 ORDER BY position
"""

# A worker whose job was given to another, or whose thread is gone, moves nothing: nor does it
# where there is another thread of that id by now.
_LEARNED = """
UPDATE threads SET learned_until = $5, waiting_since = (
    SELECT created_at FROM thread_messages
    WHERE root = threads.root AND thread_id = threads.id AND namespace = threads.namespace
        AND position = $5
)
WHERE root = $1 AND id = $2 AND namespace = $3 AND learned_until = $4 AND created_at = $6
RETURNING next_position
"""

_JOBS = f"""
SELECT id, state, run_at FROM jobs
WHERE root = $1 AND thread_id = $2 AND namespace = $3 AND kind = '{ThreadExtractPlan.job_kind}'
    AND state IN ('queued', 'running')
ORDER BY state, run_at
"""


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message with its place in a thread."""

    position: int
    message_id: str
    message: Mapping[str, Any]


async def hold(connection: Connection, ref: Ref, now: datetime) -> Record:
    """Return a thread's row, made if there is none, and keep others from appending."""
    row = await connection.fetchrow(_HOLD, *ref, now)
    assert row is not None  # noqa: S101  # inserted or updated
    return row


async def find(connection: Connection, ref: Ref) -> Record | None:
    """Return a thread's row."""
    return await connection.fetchrow(_FIND, *ref)


async def find_named(connection: Connection, root: str, thread_id: str) -> list[Record]:
    """Return the threads of a root with this id, each in a namespace of its own."""
    return await connection.fetch(_FIND_NAMED, root, thread_id)


async def lock(connection: Connection, ref: Ref) -> Record | None:
    """Return a thread's row, and keep others from appending."""
    return await connection.fetchrow(f"{_FIND} FOR UPDATE", *ref)


async def delete(connection: Connection, ref: Ref) -> None:
    """Remove a thread and its messages."""
    await connection.execute(_DELETE, *ref)


async def append(
    connection: Connection, thread: Row, messages: Sequence[NewMessage], now: datetime
) -> None:
    """Store messages of a thread that is held."""
    await connection.execute(
        _INSERT_MESSAGES,
        thread["root"],
        thread["id"],
        thread["namespace"],
        now,
        [message.position for message in messages],
        [message.message_id for message in messages],
        [json.dumps(message.message, ensure_ascii=False) for message in messages],
    )


async def set_formation(
    connection: Connection,
    ref: Ref,
    next_position: int,
    waiting_since: datetime | None,
    formation: str | None,
) -> None:
    """Write how far a thread that is held goes, and how memories are formed of it."""
    await connection.execute(_FORM, *ref, next_position, waiting_since, formation)


async def find_known(
    connection: Connection, ref: Ref, message_ids: Collection[str]
) -> dict[str, Any]:
    """Return the messages of a thread that have one of some ids, by id."""
    if not message_ids:
        return {}
    rows = await connection.fetch(_FIND_KNOWN, *ref, list(message_ids))
    return {row["message_id"]: json.loads(row["message"]) for row in rows}


async def find_page(connection: Connection, ref: Ref, start: int, limit: int) -> Page[Record]:
    """Return a page of messages from a position on."""
    return await fetch_page(connection, _FIND_PAGE, *ref, start, start + limit + 1, limit=limit)


async def find_messages(connection: Connection, ref: Ref, start: int, end: int) -> list[Record]:
    """Return the messages from one position to before another."""
    return await connection.fetch(_FIND_MESSAGES, *ref, start, end)


async def find_next(
    connection: Connection, ref: Ref, start: int, end: int, characters: int
) -> list[Record]:
    """Return messages from a position on, as many as their JSON has room for; at least one."""
    return await connection.fetch(_FIND_NEXT, *ref, start, end, characters)


async def find_before(
    connection: Connection, ref: Ref, start: int, end: int, characters: int
) -> list[Record]:
    """Return the last messages before a position that their JSON has room for."""
    return await connection.fetch(_FIND_BEFORE, *ref, start, end, characters)


async def learned(connection: Connection, thread: Row, end: int) -> int | None:
    """Note that messages of a thread as it was read were learned from; return where it ends.

    None, and nothing is changed, if they are not the next to be learned from any more.
    """
    position: int | None = await connection.fetchval(
        _LEARNED, *ref_of(thread), thread["learned_until"], end, thread["created_at"]
    )
    return position


async def find_jobs(connection: Connection, ref: Ref) -> list[Record]:
    """Return the jobs that form memories of a thread: queued ones first, the next one first."""
    return await connection.fetch(_JOBS, *ref)


def ref_of(thread: Row) -> Ref:
    """Return the identity of a thread's row."""
    return thread["root"], thread["id"], thread["namespace"]


def message_of(row: Row) -> dict[str, Any]:
    """Return a row's message."""
    message: dict[str, Any] = json.loads(row["message"])
    return message
