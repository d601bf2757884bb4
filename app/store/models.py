"""Tables of the store; every one leads with `namespace`, so that one namespace is one shard."""

from pgvector.sqlalchemy import HALFVEC
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Computed,
    DateTime,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
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

from app.db import metadata

BYTEWISE = Text(collation="C")
"""Text ordered by its bytes: what makes a namespace prefix a range."""

TIME = DateTime(timezone=True)

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

items = Table(
    "items",
    metadata,
    Column("namespace", BYTEWISE, ForeignKey("namespaces.namespace"), nullable=False),
    Column("key", BYTEWISE, nullable=False),
    Column("value", JSONB, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("index_paths", JSONB, comment="Paths to embed; [] for none, NULL for the setting's."),
    Column("importance", Double),
    Column("valid_from", TIME),
    Column("valid_to", TIME),
    Column("source", JSONB),
    Column("ttl", Interval),
    Column("expires_at", TIME),
    Column("created_at", TIME, nullable=False),
    Column("updated_at", TIME, nullable=False),
    PrimaryKeyConstraint("namespace", "key"),
    CheckConstraint("jsonb_typeof(value) = 'object'", name="value_is_object"),
    CheckConstraint("importance BETWEEN 0 AND 1", name="importance_in_range"),
    Index("items_expires_at_index", "expires_at", postgresql_where=text("expires_at IS NOT NULL")),
    comment="The present state of every item.",
)

item_versions = Table(
    "item_versions",
    metadata,
    Column("namespace", BYTEWISE, nullable=False),
    Column("key", BYTEWISE, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("action", Text, nullable=False),
    Column("value", JSONB, comment="NULL where the item ended."),
    Column("index_paths", JSONB),
    Column("importance", Double),
    Column("valid_from", TIME),
    Column("valid_to", TIME),
    Column("source", JSONB),
    Column("actor", Text, nullable=False),
    Column("recorded_at", TIME, nullable=False),
    PrimaryKeyConstraint("namespace", "key", "version"),
    comment="Every state an item has had; rows are never changed and outlive the item.",
)

passages = Table(
    "passages",
    metadata,
    Column("namespace", BYTEWISE, nullable=False),
    Column("key", BYTEWISE, nullable=False),
    Column("model_id", SmallInteger, ForeignKey("embedding_models.id"), nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("path", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("embedding", HALFVEC, nullable=False),
    PrimaryKeyConstraint("namespace", "key", "model_id", "ordinal"),
    ForeignKeyConstraint(
        ["namespace", "key"], ["items.namespace", "items.key"], ondelete="CASCADE"
    ),
    comment="Pieces of the items' indexed text with their embeddings.",
)
