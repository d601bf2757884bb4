"""Table of the changes that jobs propose."""

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
from sqlalchemy.dialects.postgresql import JSONB

from app.db.tables import BYTEWISE, metadata

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
    Column("reason", Text, comment="The model's reason, if it gave one."),
    Column("version_before", BigInteger, comment="NULL if there was no item."),
    Column("version_after", BigInteger, comment="NULL until applied."),
    Column(
        "value_bytes",
        Integer,
        Computed("octet_length(value::text)", persisted=True),
        comment="Bytes of the JSON text.",
    ),
    PrimaryKeyConstraint("job_id", "number"),
    Index("job_changes_namespace_index", "namespace", "key"),
    comment="Changes that jobs proposed or made, one row for each item.",
)
