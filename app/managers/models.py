"""Tables of managers: their configurations, and what jobs proposed and changed."""

from sqlalchemy import (
    BigInteger,
    Column,
    Computed,
    ForeignKey,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
)
from sqlalchemy.dialects.postgresql import JSON, JSONB

from app.db.tables import BYTEWISE, TIME, metadata

managers = Table(
    "managers",
    metadata,
    Column("namespace", BYTEWISE, nullable=False, comment="Root of the keys that may use it."),
    Column("name", BYTEWISE, nullable=False),
    Column("config", JSON, nullable=False, comment="As text: jsonb would sort members."),
    Column("version", Integer, nullable=False),
    Column("created_at", TIME, nullable=False),
    Column("updated_at", TIME, nullable=False),
    PrimaryKeyConstraint("namespace", "name"),
    comment="Stored configurations of extraction.",
)

job_changes = Table(
    "job_changes",
    metadata,
    Column("job_id", BYTEWISE, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("namespace", BYTEWISE, nullable=False),
    Column("key", BYTEWISE, nullable=False),
    Column("action", Text, nullable=False, comment="insert, update or delete."),
    Column(
        "state", Text, nullable=False, comment="proposed, applied, rejected, discarded or undone."
    ),
    Column("kind", Text),
    Column("value", JSONB, comment="The value to write; NULL for a delete."),
    Column("details", JSONB, nullable=False, comment="Importance, validity, source."),
    Column("reason", Text, comment="Why the model wanted it, where it said so."),
    Column("version_before", BigInteger, comment="NULL where nothing was."),
    Column("version_after", BigInteger, comment="NULL until applied."),
    Column(
        "value_bytes",
        Integer,
        Computed("octet_length(value::text)", persisted=True),
        comment="Of the JSON text.",
    ),
    PrimaryKeyConstraint("job_id", "number"),
    Index("job_changes_namespace_index", "namespace", "key"),
    comment="What jobs proposed, one row an item.",
)

consolidation_marks = Table(
    "consolidation_marks",
    metadata,
    Column("namespace", BYTEWISE, nullable=False, comment="Consolidated, with all below it."),
    Column("strategy", Text, nullable=False, comment="By which it was."),
    Column("consolidated_until", TIME, nullable=False, comment="Newest change looked at."),
    PrimaryKeyConstraint("namespace", "strategy"),
    comment="Up to where each namespace has been consolidated.",
)
