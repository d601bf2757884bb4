"""Tables of threads and their messages."""

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

from app.db.tables import BYTEWISE, TIME, metadata

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
