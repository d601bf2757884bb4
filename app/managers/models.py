"""Table of managers."""

from sqlalchemy import Column, Integer, PrimaryKeyConstraint, Table
from sqlalchemy.dialects.postgresql import JSON

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
