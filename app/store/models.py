"""Tables of the store; every one leads with `namespace`, so that one namespace is one shard."""

from pgvector.sqlalchemy import HALFVEC
from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    Interval,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from app.db.tables import BYTEWISE, TIME, metadata

namespaces = Table(
    "namespaces",
    metadata,
    Column("namespace", BYTEWISE, primary_key=True),
    Column(
        "labels",
        ARRAY(Text),
        Computed("string_to_array(rtrim(namespace, E'\\x1f'), E'\\x1f')", persisted=True),
        nullable=False,
    ),
    comment="Namespaces that hold items; emptied ones are removed by the sweeper.",
)

_POSITION = """
CASE WHEN jsonb_typeof(source -> 'position') = 'number'
    AND (source -> 'position')::numeric BETWEEN -9e15 AND 9e15
THEN (source -> 'position')::numeric::bigint END
"""

items = Table(
    "items",
    metadata,
    Column("namespace", BYTEWISE, ForeignKey("namespaces.namespace"), nullable=False),
    Column("key", BYTEWISE, nullable=False),
    Column("value", JSONB, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("index_paths", JSONB, comment="Paths to embed; [] for none, NULL for the setting's."),
    Column("importance", Double),
    Column("pinned", Boolean, nullable=False, server_default=text("false")),
    Column("valid_from", TIME, comment="Its beginning."),
    Column("valid_from_precision", Text, comment="year, month, day, or time."),
    Column("valid_to", TIME, comment="The end of the year, month, or day, or the time."),
    Column("valid_to_precision", Text, comment="year, month, day, or time."),
    Column("said_first", TIME, comment="When its source was first said."),
    Column("said_last", TIME, comment="When its source was last said."),
    Column("source_class", Text, comment="user, assistant, tool, document, or import."),
    Column("source", JSONB),
    Column("questions", JSONB, comment="Questions that the item answers, indexed with it."),
    Column("ttl", Interval),
    Column("expires_at", TIME),
    Column("created_at", TIME, nullable=False),
    Column("updated_at", TIME, nullable=False),
    Column(
        "id", BigInteger, Identity(), nullable=False, comment="Number that other tables refer to."
    ),
    Column("thread_id", Text, Computed("source ->> 'thread_id'", persisted=True)),
    Column("position", BigInteger, Computed(_POSITION, persisted=True)),
    Column(
        "value_bytes",
        Integer,
        Computed("octet_length(value::text)", persisted=True),
        nullable=False,
        comment="Bytes of the JSON text.",
    ),
    Column(
        "embed_after",
        TIME,
        comment="When to try again to embed passages without a vector; NULL: all are embedded.",
    ),
    Column(
        "derived",
        Boolean,
        Computed("coalesce(source ? 'memory_keys', false)", persisted=True),
        nullable=False,
        comment="Whether it rests on other items.",
    ),
    Column(
        "stale",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="Whether items that it rests on have changed or ended since it was written.",
    ),
    PrimaryKeyConstraint("namespace", "key"),
    CheckConstraint("jsonb_typeof(value) = 'object'", name="value_is_object"),
    CheckConstraint("importance BETWEEN 0 AND 1", name="importance_in_range"),
    Index(
        "items_embed_after_index", "embed_after", postgresql_where=text("embed_after IS NOT NULL")
    ),
    Index("items_derived_index", "namespace", postgresql_where=text("derived")),
    Index("items_expires_at_index", "expires_at", postgresql_where=text("expires_at IS NOT NULL")),
    Index("items_id_index", "id"),
    Index("items_pinned_index", "namespace", postgresql_where=text("pinned")),
    Index(
        "items_thread_index",
        "namespace",
        "thread_id",
        "position",
        postgresql_where=text("thread_id IS NOT NULL"),
    ),
    comment="The present state of every item.",
)

item_versions = Table(
    "item_versions",
    metadata,
    Column("namespace", BYTEWISE, nullable=False),
    Column("key", BYTEWISE, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("action", Text, nullable=False),
    Column("value", JSONB, comment="NULL if the item ended."),
    Column("index_paths", JSONB),
    Column("importance", Double),
    Column("pinned", Boolean),
    Column("valid_from", TIME, comment="Its beginning."),
    Column("valid_from_precision", Text, comment="year, month, day, or time."),
    Column("valid_to", TIME, comment="The end of the year, month, or day, or the time."),
    Column("valid_to_precision", Text, comment="year, month, day, or time."),
    Column("said_first", TIME, comment="When its source was first said."),
    Column("said_last", TIME, comment="When its source was last said."),
    Column("source_class", Text, comment="user, assistant, tool, document, or import."),
    Column("source", JSONB),
    Column("questions", JSONB),
    Column("actor", Text, nullable=False),
    Column("recorded_at", TIME, nullable=False),
    Column(
        "value_bytes",
        Integer,
        Computed("octet_length(value::text)", persisted=True),
        comment="Bytes of the JSON text.",
    ),
    PrimaryKeyConstraint("namespace", "key", "version"),
    comment="Every state an item has had; rows outlive the item. "
    "They never change, except that what is said again moves said_last.",
)

passages = Table(
    "passages",
    metadata,
    Column("namespace", BYTEWISE, nullable=False),
    Column("key", BYTEWISE, nullable=False),
    Column("index_id", SmallInteger, ForeignKey("passage_indexes.id"), nullable=False),
    Column("ordinal", SmallInteger, nullable=False),
    Column("item_id", BigInteger, nullable=False),
    Column("length", Integer, nullable=False, comment="Number of terms."),
    Column("path", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("embedding", HALFVEC, comment="NULL if nothing is embedded, or not yet."),
    PrimaryKeyConstraint("namespace", "key", "index_id", "ordinal"),
    ForeignKeyConstraint(
        ["namespace", "key"], ["items.namespace", "items.key"], ondelete="CASCADE"
    ),
    comment="Pieces of the items' indexed text with their embeddings.",
)

terms = Table(
    "terms",
    metadata,
    Column("namespace", BYTEWISE, nullable=False),
    Column("term", BYTEWISE, nullable=False),
    Column("item_id", BigInteger, nullable=False),
    Column("index_id", SmallInteger, nullable=False),
    Column("ordinal", SmallInteger, nullable=False),
    Column("frequency", SmallInteger, nullable=False),
    Column("length", Integer, nullable=False, comment="Number of terms in the passage."),
    Index("terms_term_index", "term", "namespace", "index_id"),
    Index("terms_item_id_index", "item_id", "ordinal"),
    comment="Which passages hold a term, and how often; a trigger removes those of ended items.",
)

item_usage = Table(
    "item_usage",
    metadata,
    Column("namespace", BYTEWISE, nullable=False),
    Column("item_id", BigInteger, nullable=False),
    Column("uses", BigInteger, nullable=False),
    Column("last_used_at", TIME, nullable=False),
    PrimaryKeyConstraint("namespace", "item_id"),
    comment="How often and when items were read; a trigger removes those of ended items.",
)
