"""SQL on threads and their messages, and their tables.

Appending locks the thread's row for the whole transaction, so positions have no gaps and every
reader sees whole requests.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    Column,
    Computed,
    ForeignKeyConstraint,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from app.db.database import Connection, Row
from app.db.pages import Page, fetch_page
from app.db.tables import BYTEWISE, TIME, metadata
from app.namespaces import Root, StoredNamespace
from app.store.repository import COLUMNS as ITEM_COLUMNS
from app.store.repository import read_item
from app.store.types import Item
from app.threads.schedule import ExtractionSchedule

threads = Table(
    "threads",
    metadata,
    Column("root", BYTEWISE, nullable=False, comment="Root of the key that appends to it."),
    Column("id", BYTEWISE, nullable=False),
    Column("namespace", BYTEWISE, nullable=False, comment="Namespace of its memories."),
    Column("schedule", JSONB, comment="When and how memories are extracted; NULL: not at all."),
    Column("next_position", BigInteger, nullable=False, server_default=text("0")),
    Column("extracted_until", BigInteger, nullable=False, server_default=text("0")),
    Column("pending_since", TIME, comment="Arrival of the oldest message not extracted from."),
    Column("summary", JSONB, comment="The running summary."),
    Column("created_at", TIME, nullable=False),
    Column("updated_at", TIME, nullable=False),
    PrimaryKeyConstraint("root", "id", "namespace"),
    Index("threads_namespace_index", "namespace"),
    comment="Conversations, and how far memories were extracted from them.",
)

thread_messages = Table(
    "thread_messages",
    metadata,
    Column("root", BYTEWISE, nullable=False),
    Column("thread_id", BYTEWISE, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("namespace", BYTEWISE, nullable=False),
    Column("message_id", Text, nullable=False),
    Column("message", JSONB, nullable=False),
    Column("created_at", TIME, nullable=False),
    Column(
        "message_bytes",
        Integer,
        Computed("octet_length(message::text)", persisted=True),
        nullable=False,
        comment="Bytes of the JSON text.",
    ),
    PrimaryKeyConstraint("root", "thread_id", "namespace", "position"),
    ForeignKeyConstraint(
        ["root", "thread_id", "namespace"],
        ["threads.root", "threads.id", "threads.namespace"],
        ondelete="CASCADE",
    ),
    Index(
        "thread_messages_message_id_key",
        "root",
        "thread_id",
        "namespace",
        "message_id",
        unique=True,
    ),
    comment="Messages of threads, in order.",
)


class ThreadRef(NamedTuple):
    """Identity of a thread; clients choose the id, so several namespaces may have the same."""

    root: Root
    thread_id: str
    namespace: StoredNamespace


@dataclass(frozen=True, slots=True)
class Thread:
    """A stored thread; `schedule` is None if no memories are extracted, `summary` is JSON text."""

    ref: ThreadRef
    schedule: ExtractionSchedule | None
    next_position: int
    extracted_until: int
    pending_since: datetime | None
    summary: str | None
    created_at: datetime
    updated_at: datetime

    @property
    def id(self) -> str:
        """The client's id of the conversation."""
        return self.ref.thread_id

    @property
    def namespace(self) -> StoredNamespace:
        """The stored namespace of its memories."""
        return self.ref.namespace

    @property
    def pending(self) -> int:
        """Number of messages that memories have not been extracted from."""
        return self.next_position - self.extracted_until


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a thread, as JSON text, and the time at which it was appended."""

    position: int
    text: str
    created_at: datetime

    @property
    def members(self) -> dict[str, Any]:
        """The message's members."""
        members: dict[str, Any] = json.loads(self.text)
        return members


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message to append."""

    position: int
    message_id: str
    members: Mapping[str, Any]


_GET_OR_CREATE = """
INSERT INTO threads (root, id, namespace, created_at, updated_at) VALUES ($1, $2, $3, $4, $4)
ON CONFLICT (root, id, namespace) DO UPDATE SET updated_at = excluded.updated_at
RETURNING *
"""

_FIND = "SELECT * FROM threads WHERE root = $1 AND id = $2 AND namespace = $3"

_FIND_NAMED = "SELECT * FROM threads WHERE root = $1 AND id = $2"

_SCHEDULE = """
UPDATE threads SET next_position = $4, pending_since = $5, schedule = $6
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

# The namespace of the memories is that of the thread. Few rest on one message, so they are sorted
# once they are found: the index of ids would lead through all items.
_FIND_SOURCES = """
SELECT position, message, created_at FROM thread_messages
WHERE root = $1 AND thread_id = $2 AND namespace = $3 AND message_id = ANY (ARRAY(
    SELECT jsonb_array_elements_text(source -> 'message_ids') FROM items
    WHERE items.namespace = $3 AND items.key = $6 AND items.thread_id = $2
        AND jsonb_typeof(source -> 'message_ids') = 'array'
)) AND position >= $4 ORDER BY position LIMIT $5
"""

_FIND_MEMORIES = f"""
WITH of_message AS MATERIALIZED (
    SELECT {ITEM_COLUMNS}, value_bytes AS bytes FROM items
    WHERE namespace = $1 AND thread_id = $2 AND source -> 'message_ids' ? $3 AND id > $4
        AND (expires_at IS NULL OR expires_at > $5)
)
SELECT * FROM of_message ORDER BY id LIMIT $6
"""

_FIND_PAGE = _FIND_MESSAGES.replace("created_at FROM", "created_at, message_bytes AS bytes FROM")

# Messages whose JSON fits a number of characters: from a position, at least one; or back from it.
_FIND_NEXT = """
SELECT position, message, created_at FROM (
    SELECT position, message::text AS message, created_at,
        sum(length(message::text)) OVER (ORDER BY position) - length(message::text) AS taken
    FROM thread_messages
    WHERE root = $1 AND thread_id = $2 AND namespace = $3 AND position >= $4 AND position < $5
) AS found WHERE taken < $6 ORDER BY position
"""
_FIND_BEFORE = """
SELECT position, message, created_at FROM (
    SELECT position, message::text AS message, created_at,
        sum(length(message::text)) OVER (ORDER BY position DESC) AS taken
    FROM thread_messages
    WHERE root = $1 AND thread_id = $2 AND namespace = $3 AND position >= $4 AND position < $5
) AS found WHERE taken <= $6 ORDER BY position
"""

# Changes nothing if another worker has extracted the messages, or if the thread was deleted, even
# if it was created again.
_SET_EXTRACTED = """
UPDATE threads SET extracted_until = $5, pending_since = (
    SELECT created_at FROM thread_messages
    WHERE root = threads.root AND thread_id = threads.id AND namespace = threads.namespace
        AND position = $5
)
WHERE root = $1 AND id = $2 AND namespace = $3 AND extracted_until = $4 AND created_at = $6
RETURNING next_position
"""

_FIND_UNSUMMARIZED = """
SELECT message_id, message FROM thread_messages
WHERE root = $1 AND thread_id = $2 AND namespace = $3 AND message_id <> ALL ($4::text[])
ORDER BY position
"""

_SET_SUMMARY = """
UPDATE threads SET summary = $6
WHERE root = $1 AND id = $2 AND namespace = $3 AND created_at = $4
    AND summary IS NOT DISTINCT FROM $5::jsonb
RETURNING id
"""


async def get_or_create(connection: Connection, ref: ThreadRef, now: datetime) -> Thread:
    """Return a thread, created if there is none, locked against other appends."""
    row = await connection.fetchrow(_GET_OR_CREATE, *ref, now)
    assert row is not None  # noqa: S101  # inserted or updated
    return _thread(row)


async def find(connection: Connection, ref: ThreadRef) -> Thread | None:
    """Return a thread."""
    return _thread_or_none(await connection.fetchrow(_FIND, *ref))


async def find_named(connection: Connection, root: Root, thread_id: str) -> list[Thread]:
    """Return the threads of a root with this id, each in a namespace of its own."""
    return [_thread(row) for row in await connection.fetch(_FIND_NAMED, root, thread_id)]


async def lock(connection: Connection, ref: ThreadRef) -> Thread | None:
    """Return a thread, locked against appends."""
    return _thread_or_none(await connection.fetchrow(f"{_FIND} FOR UPDATE", *ref))


async def delete(connection: Connection, ref: ThreadRef) -> None:
    """Remove a thread and its messages."""
    await connection.execute(_DELETE, *ref)


async def append(
    connection: Connection, ref: ThreadRef, messages: Sequence[NewMessage], now: datetime
) -> None:
    """Store messages of a locked thread."""
    await connection.execute(
        _INSERT_MESSAGES,
        *ref,
        now,
        [message.position for message in messages],
        [message.message_id for message in messages],
        [json.dumps(message.members, ensure_ascii=False) for message in messages],
    )


async def set_schedule(
    connection: Connection,
    ref: ThreadRef,
    next_position: int,
    pending_since: datetime | None,
    schedule: ExtractionSchedule | None,
) -> None:
    """Update the end of a locked thread, and its extraction schedule."""
    text = None if schedule is None else schedule.model_dump_json()
    await connection.execute(_SCHEDULE, *ref, next_position, pending_since, text)


async def find_known(
    connection: Connection, ref: ThreadRef, message_ids: Collection[str]
) -> dict[str, dict[str, Any]]:
    """Return the messages of a thread that have one of the ids, by id."""
    if not message_ids:
        return {}
    rows = await connection.fetch(_FIND_KNOWN, *ref, list(message_ids))
    return {row["message_id"]: json.loads(row["message"]) for row in rows}


async def find_page(
    connection: Connection, ref: ThreadRef, start: int, limit: int
) -> Page[Message]:
    """Return a page of messages from a position."""
    page = await fetch_page(connection, _FIND_PAGE, *ref, start, start + limit + 1, limit=limit)
    return page.map(_message)


async def find_sources(
    connection: Connection, ref: ThreadRef, memory_key: str, start: int, limit: int
) -> Page[Message]:
    """Return a page of the messages that a memory of a thread rests on."""
    sql = _FIND_SOURCES.replace("created_at FROM", "created_at, message_bytes AS bytes FROM")
    page = await fetch_page(connection, sql, *ref, start, limit + 1, memory_key, limit=limit)
    return page.map(_message)


async def find_memories(
    connection: Connection, ref: ThreadRef, message_id: str, after: int, now: datetime, limit: int
) -> Page[Item]:
    """Return a page of the memories that rest on a message, behind an item's id."""
    place = (ref.namespace, ref.thread_id, message_id, after, now, limit + 1)
    page = await fetch_page(connection, _FIND_MEMORIES, *place, limit=limit)
    return page.map(read_item)


async def find_messages(
    connection: Connection, ref: ThreadRef, start: int, end: int
) -> list[Message]:
    """Return the messages from one position to before another."""
    return _messages(await connection.fetch(_FIND_MESSAGES, *ref, start, end))


async def find_next(
    connection: Connection, ref: ThreadRef, start: int, end: int, characters: int
) -> list[Message]:
    """Return messages from a position, at least one, whose JSON fits a number of characters."""
    return _messages(await connection.fetch(_FIND_NEXT, *ref, start, end, characters))


async def find_before(
    connection: Connection, ref: ThreadRef, start: int, end: int, characters: int
) -> list[Message]:
    """Return the last messages before a position whose JSON fits a number of characters."""
    return _messages(await connection.fetch(_FIND_BEFORE, *ref, start, end, characters))


async def set_extracted(connection: Connection, thread: Thread, end: int) -> int | None:
    """Record that memories were extracted up to a position; return where the thread ends.

    None, with nothing changed, if the thread is no longer as it was read.
    """
    position: int | None = await connection.fetchval(
        _SET_EXTRACTED, *thread.ref, thread.extracted_until, end, thread.created_at
    )
    return position


async def find_unsummarized(
    connection: Connection, ref: ThreadRef, summarized: Collection[str]
) -> list[dict[str, Any]]:
    """Return the messages of a thread, with their ids, that have none of the given ids."""
    rows = await connection.fetch(_FIND_UNSUMMARIZED, *ref, list(summarized))
    return [{**json.loads(row["message"]), "id": row["message_id"]} for row in rows]


async def set_summary(connection: Connection, thread: Thread, summary: str) -> bool:
    """Replace the running summary; False if the thread or its summary changed since it was read."""
    read = (*thread.ref, thread.created_at, thread.summary)
    return await connection.fetchrow(_SET_SUMMARY, *read, summary) is not None


def _thread(row: Row) -> Thread:
    schedule = row["schedule"]
    return Thread(
        ref=ThreadRef(row["root"], row["id"], row["namespace"]),
        schedule=schedule and ExtractionSchedule.model_validate_json(schedule),
        next_position=row["next_position"],
        extracted_until=row["extracted_until"],
        pending_since=row["pending_since"],
        summary=row["summary"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def _thread_or_none(row: Row | None) -> Thread | None:
    return None if row is None else _thread(row)


def _messages(rows: Iterable[Row]) -> list[Message]:
    return [_message(row) for row in rows]


def _message(row: Row) -> Message:
    return Message(row["position"], row["message"], row["created_at"])
