"""Metadata and column types that the tables of all features share."""

from sqlalchemy import DateTime, MetaData, Text

metadata = MetaData(
    naming_convention={
        "ix": "%(table_name)s_%(column_0_N_name)s_index",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "pk": "%(table_name)s_pkey",
    }
)

BYTEWISE = Text(collation="C")
"""Text ordered by its bytes, so that a namespace prefix is a range."""

TIME = DateTime(timezone=True)

TABLE_NAMES = (
    "alembic_version",
    "api_keys",
    "consolidation_marks",
    "idempotent_requests",
    "item_usage",
    "item_versions",
    "items",
    "job_changes",
    "job_events",
    "job_rates",
    "job_replies",
    "jobs",
    "managers",
    "model_calls",
    "model_capabilities",
    "namespaces",
    "passage_indexes",
    "passages",
    "prompt_labels",
    "prompt_versions",
    "prompts",
    "terms",
    "thread_messages",
    "threads",
    "workers",
)
"""All of memoryd's tables; their schema may also hold tables of other programs."""
