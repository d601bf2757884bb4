"""The table of API keys."""

from sqlalchemy import Column, DateTime, Integer, LargeBinary, Table, Text
from sqlalchemy.dialects.postgresql import JSONB

from app.db.tables import metadata

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("secret_hash", LargeBinary, nullable=False),
    Column("root", Text(collation="C"), nullable=False),
    Column("grants", JSONB, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True)),
    Column("revoked_at", DateTime(timezone=True)),
    Column("requests_per_minute", Integer, comment="NULL: the default."),
    Column("jobs_per_minute", Integer, comment="NULL: the default."),
    comment="API keys; the secret itself is never stored.",
)
