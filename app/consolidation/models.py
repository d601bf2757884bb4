"""Table of the progress of consolidations."""

from sqlalchemy import Column, PrimaryKeyConstraint, Table, Text

from app.db.tables import BYTEWISE, TIME, metadata

consolidation_marks = Table(
    "consolidation_marks",
    metadata,
    Column("namespace", BYTEWISE, nullable=False, comment="Consolidated, with all below it."),
    Column("strategy", Text, nullable=False, comment="By which it was."),
    Column("consolidated_until", TIME, nullable=False, comment="Newest change looked at."),
    PrimaryKeyConstraint("namespace", "strategy"),
    comment="Up to where each namespace has been consolidated.",
)
