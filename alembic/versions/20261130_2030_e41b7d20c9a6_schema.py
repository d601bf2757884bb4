"""The schema of 0.1.0."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from pgvector.sqlalchemy import HALFVEC
from sqlalchemy.dialects import postgresql

revision: str = "e41b7d20c9a6"
down_revision: str | Sequence[str] | None = None
branch_labels = None
depends_on = None

POSITION = """
CASE WHEN jsonb_typeof(source -> 'position') = 'number'
    AND (source -> 'position')::numeric BETWEEN -9e15 AND 9e15
THEN (source -> 'position')::numeric::bigint END
"""

CONFINED = (
    "consolidation_marks",
    "idempotent_requests",
    "item_usage",
    "item_versions",
    "items",
    "job_changes",
    "job_events",
    "job_replies",
    "jobs",
    "managers",
    "model_calls",
    "namespaces",
    "passages",
    "prompt_labels",
    "prompt_versions",
    "prompts",
    "terms",
    "thread_messages",
    "threads",
)
"""Tables with clients' data, whose rows are confined to a root."""

TABLES = (
    "prompt_labels",
    "prompt_versions",
    "prompts",
    "thread_messages",
    "threads",
    "managers",
    "consolidation_marks",
    "job_changes",
    "idempotent_requests",
    "job_rates",
    "workers",
    "job_replies",
    "model_calls",
    "model_capabilities",
    "job_events",
    "jobs",
    "item_usage",
    "terms",
    "passages",
    "passage_indexes",
    "item_versions",
    "items",
    "namespaces",
    "api_keys",
)
"""All tables, each before those that it refers to."""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("CREATE EXTENSION IF NOT EXISTS vector")
    _create_keys()
    _create_items()
    _create_passages()
    _create_jobs()
    _create_job_records()
    _create_changes()
    _create_managers_and_threads()
    _create_prompts()
    _confine_to_roots()
    _forget_ended_items()


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("DROP TRIGGER forget_ended_items ON items")
    op.execute("DROP FUNCTION forget_ended_items()")
    for table in TABLES:
        op.drop_table(table)


def _create_keys() -> None:
    """Create tables: API keys."""
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False),
        sa.Column("root", sa.Text(collation="C"), nullable=False),
        sa.Column("grants", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("requests_per_minute", sa.Integer(), nullable=True, comment="NULL: the default."),
        sa.Column("jobs_per_minute", sa.Integer(), nullable=True, comment="NULL: the default."),
        sa.PrimaryKeyConstraint("id", name=op.f("api_keys_pkey")),
        comment="API keys; the secret itself is never stored.",
    )


def _create_items() -> None:
    """Create tables: items and their history."""
    op.create_table(
        "namespaces",
        sa.Column("namespace", sa.Text(collation="C"), nullable=False),
        sa.Column(
            "labels",
            postgresql.ARRAY(sa.Text()),
            sa.Computed("string_to_array(rtrim(namespace, E'\\x1f'), E'\\x1f')", persisted=True),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("namespace", name=op.f("namespaces_pkey")),
        comment="Namespaces that hold items; emptied ones are removed by the sweeper.",
    )
    op.create_table(
        "items",
        sa.Column("namespace", sa.Text(collation="C"), nullable=False),
        sa.Column("key", sa.Text(collation="C"), nullable=False),
        sa.Column("value", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column(
            "index_paths",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="Paths to embed; [] for none, NULL for the setting's.",
        ),
        sa.Column("importance", sa.Double(), nullable=True),
        sa.Column("pinned", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column(
            "valid_from",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="Its beginning.",
        ),
        sa.Column(
            "valid_from_precision",
            sa.Text(),
            nullable=True,
            comment="year, month, day, or time.",
        ),
        sa.Column(
            "valid_to",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="The end of the year, month, or day, or the time.",
        ),
        sa.Column(
            "valid_to_precision",
            sa.Text(),
            nullable=True,
            comment="year, month, day, or time.",
        ),
        sa.Column(
            "said_first",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When its source was first said.",
        ),
        sa.Column(
            "said_last",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When its source was last said.",
        ),
        sa.Column(
            "source_class",
            sa.Text(),
            nullable=True,
            comment="user, assistant, tool, document, or import.",
        ),
        sa.Column("source", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column(
            "questions",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="Questions that the item answers, indexed with it.",
        ),
        sa.Column("ttl", sa.Interval(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "id",
            sa.BigInteger(),
            sa.Identity(always=False),
            nullable=False,
            comment="Number that other tables refer to.",
        ),
        sa.Column(
            "thread_id",
            sa.Text(),
            sa.Computed("source ->> 'thread_id'", persisted=True),
            nullable=True,
        ),
        sa.Column(
            "position",
            sa.BigInteger(),
            sa.Computed(
                POSITION,
                persisted=True,
            ),
            nullable=True,
        ),
        sa.Column(
            "value_bytes",
            sa.Integer(),
            sa.Computed("octet_length(value::text)", persisted=True),
            nullable=False,
            comment="Bytes of the JSON text.",
        ),
        sa.Column(
            "embed_after",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When to try again to embed passages without a vector; NULL: all are embedded.",
        ),
        sa.Column(
            "derived",
            sa.Boolean(),
            sa.Computed("coalesce(source ? 'memory_keys', false)", persisted=True),
            nullable=False,
            comment="Whether it rests on other items.",
        ),
        sa.Column(
            "stale",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="Whether items that it rests on have changed or ended since it was written.",
        ),
        sa.CheckConstraint(
            "jsonb_typeof(value) = 'object'", name=op.f("items_value_is_object_check")
        ),
        sa.CheckConstraint(
            "importance BETWEEN 0 AND 1", name=op.f("items_importance_in_range_check")
        ),
        sa.ForeignKeyConstraint(
            ["namespace"], ["namespaces.namespace"], name=op.f("items_namespace_fkey")
        ),
        sa.PrimaryKeyConstraint("namespace", "key", name=op.f("items_pkey")),
        comment="The present state of every item.",
    )
    op.create_index(
        "items_embed_after_index",
        "items",
        ["embed_after"],
        unique=False,
        postgresql_where=sa.text("embed_after IS NOT NULL"),
    )
    op.create_index(
        "items_derived_index",
        "items",
        ["namespace"],
        unique=False,
        postgresql_where=sa.text("derived"),
    )
    op.create_index(
        "items_expires_at_index",
        "items",
        ["expires_at"],
        unique=False,
        postgresql_where=sa.text("expires_at IS NOT NULL"),
    )
    op.create_index("items_id_index", "items", ["id"], unique=False)
    op.create_index(
        "items_pinned_index",
        "items",
        ["namespace"],
        unique=False,
        postgresql_where=sa.text("pinned"),
    )
    op.create_index(
        "items_thread_index",
        "items",
        ["namespace", "thread_id", "position"],
        unique=False,
        postgresql_where=sa.text("thread_id IS NOT NULL"),
    )
    op.create_table(
        "item_versions",
        sa.Column("namespace", sa.Text(collation="C"), nullable=False),
        sa.Column("key", sa.Text(collation="C"), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column(
            "value",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="NULL if the item ended.",
        ),
        sa.Column("index_paths", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("importance", sa.Double(), nullable=True),
        sa.Column("pinned", sa.Boolean(), nullable=True),
        sa.Column(
            "valid_from",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="Its beginning.",
        ),
        sa.Column(
            "valid_from_precision",
            sa.Text(),
            nullable=True,
            comment="year, month, day, or time.",
        ),
        sa.Column(
            "valid_to",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="The end of the year, month, or day, or the time.",
        ),
        sa.Column(
            "valid_to_precision",
            sa.Text(),
            nullable=True,
            comment="year, month, day, or time.",
        ),
        sa.Column(
            "said_first",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When its source was first said.",
        ),
        sa.Column(
            "said_last",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When its source was last said.",
        ),
        sa.Column(
            "source_class",
            sa.Text(),
            nullable=True,
            comment="user, assistant, tool, document, or import.",
        ),
        sa.Column("source", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("questions", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "value_bytes",
            sa.Integer(),
            sa.Computed("octet_length(value::text)", persisted=True),
            nullable=True,
            comment="Bytes of the JSON text.",
        ),
        sa.PrimaryKeyConstraint("namespace", "key", "version", name=op.f("item_versions_pkey")),
        comment="Every state an item has had; rows outlive the item. "
        "They never change, except that what is said again moves said_last.",
    )


def _create_passages() -> None:
    """Create tables: passages, their terms, and uses of items."""
    op.create_table(
        "passage_indexes",
        sa.Column("id", sa.SmallInteger(), sa.Identity(always=False), nullable=False),
        sa.Column(
            "embedding",
            sa.Text(),
            nullable=False,
            comment="As MEMORYD_EMBEDDING names it, with the form of passages, or none.",
        ),
        sa.Column("dimensions", sa.Integer(), nullable=False),
        sa.Column(
            "vocabulary", sa.Text(), nullable=False, comment="Version and language of the terms."
        ),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("passage_indexes_pkey")),
        comment="The ways in which passages were made; one is active.",
    )
    op.create_index(
        "passage_indexes_active_index",
        "passage_indexes",
        ["active"],
        unique=True,
        postgresql_where=sa.text("active"),
    )
    op.create_table(
        "passages",
        sa.Column("namespace", sa.Text(collation="C"), nullable=False),
        sa.Column("key", sa.Text(collation="C"), nullable=False),
        sa.Column("index_id", sa.SmallInteger(), nullable=False),
        sa.Column("ordinal", sa.SmallInteger(), nullable=False),
        sa.Column("item_id", sa.BigInteger(), nullable=False),
        sa.Column("length", sa.Integer(), nullable=False, comment="Number of terms."),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column(
            "embedding",
            HALFVEC(),
            nullable=True,
            comment="NULL if nothing is embedded, or not yet.",
        ),
        sa.ForeignKeyConstraint(
            ["index_id"], ["passage_indexes.id"], name=op.f("passages_index_id_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["namespace", "key"],
            ["items.namespace", "items.key"],
            name=op.f("passages_namespace_key_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "namespace", "key", "index_id", "ordinal", name=op.f("passages_pkey")
        ),
        comment="Pieces of the items' indexed text with their embeddings.",
    )
    op.create_table(
        "terms",
        sa.Column("namespace", sa.Text(collation="C"), nullable=False),
        sa.Column("term", sa.Text(collation="C"), nullable=False),
        sa.Column("item_id", sa.BigInteger(), nullable=False),
        sa.Column("index_id", sa.SmallInteger(), nullable=False),
        sa.Column("ordinal", sa.SmallInteger(), nullable=False),
        sa.Column("frequency", sa.SmallInteger(), nullable=False),
        sa.Column(
            "length", sa.Integer(), nullable=False, comment="Number of terms in the passage."
        ),
        comment="Which passages hold a term, and how often; "
        "a trigger removes those of ended items.",
    )
    op.create_index("terms_item_id_index", "terms", ["item_id", "ordinal"], unique=False)
    op.create_index("terms_term_index", "terms", ["term", "namespace", "index_id"], unique=False)
    op.create_table(
        "item_usage",
        sa.Column("namespace", sa.Text(collation="C"), nullable=False),
        sa.Column("item_id", sa.BigInteger(), nullable=False),
        sa.Column("uses", sa.BigInteger(), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("namespace", "item_id", name=op.f("item_usage_pkey")),
        comment="How often and when items were read; a trigger removes those of ended items.",
    )
    # Vectors stay in the row: fetching each from a side table would dominate an exact scan.
    op.execute("ALTER TABLE passages ALTER COLUMN embedding SET STORAGE PLAIN")


def _create_jobs() -> None:
    """Create tables: jobs."""
    op.create_table(
        "jobs",
        sa.Column(
            "id",
            sa.Text(collation="C"),
            nullable=False,
            comment="Begins with the time, so ids are in order.",
        ),
        sa.Column(
            "namespace",
            sa.Text(collation="C"),
            nullable=False,
            comment="Namespace of its memories, or its root.",
        ),
        sa.Column(
            "root",
            sa.Text(collation="C"),
            nullable=False,
            comment="Root of the key that submitted it.",
        ),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column(
            "grants",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="The key's grants, which the job has too.",
        ),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("request", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("manager", sa.Text(), nullable=True),
        sa.Column("thread_id", sa.Text(), nullable=True),
        sa.Column(
            "concurrency_key",
            sa.Text(collation="C"),
            nullable=True,
            comment="Jobs with the same key run one after another.",
        ),
        sa.Column(
            "dedupe_key",
            sa.Text(collation="C"),
            nullable=True,
            comment="Only one job of a kind with the key waits to start.",
        ),
        sa.Column(
            "priority",
            sa.SmallInteger(),
            nullable=False,
            comment="0: a client waits for it; 1: background.",
        ),
        sa.Column("attempt", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("run_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column(
            "lease_until",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="A worker that is silent for longer has lost the job.",
        ),
        sa.Column(
            "cancel_requested", sa.Boolean(), server_default=sa.text("false"), nullable=False
        ),
        sa.Column(
            "isolated",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="Runs alone in a process, because a process it ran in died.",
        ),
        sa.Column(
            "blocked_since",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="Waits for the operator to correct the configuration.",
        ),
        sa.Column(
            "events",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Number of events.",
        ),
        sa.Column(
            "calls",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Number of model calls.",
        ),
        sa.Column("result", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("error", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'awaiting_review', 'succeeded', 'failed', 'cancelled')",
            name=op.f("jobs_state_is_known_check"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("jobs_pkey")),
        comment="Jobs, from submission until some time after their end.",
    )
    op.create_index(
        "jobs_dedupe_key",
        "jobs",
        ["root", "dedupe_key", "namespace", "kind"],
        unique=True,
        postgresql_where=sa.text("state = 'queued' AND attempt = 0 AND dedupe_key IS NOT NULL"),
    )
    op.create_index(
        "jobs_failed_index",
        "jobs",
        ["kind"],
        unique=False,
        postgresql_where=sa.text("state = 'failed'"),
    )
    op.create_index(
        "jobs_finished_at_index",
        "jobs",
        ["finished_at"],
        unique=False,
        postgresql_where=sa.text("finished_at IS NOT NULL"),
    )
    op.create_index("jobs_namespace_index", "jobs", ["namespace", "id"], unique=False)
    op.create_index(
        "jobs_queue_index",
        "jobs",
        ["root", "priority", "run_at", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.create_index(
        "jobs_running_index",
        "jobs",
        ["concurrency_key"],
        unique=False,
        postgresql_where=sa.text("state = 'running'"),
    )
    op.create_index(
        "jobs_thread_index",
        "jobs",
        ["thread_id", "id"],
        unique=False,
        postgresql_where=sa.text("thread_id IS NOT NULL"),
    )


def _create_job_records() -> None:
    """Create tables: records that belong to jobs."""
    op.create_table(
        "job_events",
        sa.Column("job_id", sa.Text(collation="C"), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("namespace", sa.Text(collation="C"), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("data", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name=op.f("job_events_job_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", "number", name=op.f("job_events_pkey")),
        comment="Events that jobs reported, in order.",
    )
    op.create_table(
        "model_calls",
        sa.Column("job_id", sa.Text(collation="C"), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("namespace", sa.Text(collation="C"), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False, comment="Purpose of the call."),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("finish_reason", sa.Text(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), nullable=False),
        sa.Column(
            "cost_usd",
            sa.Double(),
            nullable=True,
            comment="NULL if the price of the model is unknown.",
        ),
        sa.Column("milliseconds", sa.Integer(), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name=op.f("model_calls_job_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", "number", name=op.f("model_calls_pkey")),
        comment="Model calls and their cost, recorded when the model answers.",
    )
    op.create_table(
        "job_replies",
        sa.Column("job_id", sa.Text(collation="C"), nullable=False),
        sa.Column(
            "digest",
            sa.Text(collation="C"),
            nullable=False,
            comment="Hash of the model and the request.",
        ),
        sa.Column("namespace", sa.Text(collation="C"), nullable=False),
        sa.Column("reply", sa.Text(), nullable=False, comment="The reply as JSON."),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name=op.f("job_replies_job_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", "digest", name=op.f("job_replies_pkey")),
        comment="Replies of models to a job that has not ended: "
        "no other attempt pays for them again.",
    )
    op.create_table(
        "model_capabilities",
        sa.Column("address", sa.Text(), nullable=False, comment="Base URL of the server."),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("feature", sa.Text(), nullable=False),
        sa.Column("limit", sa.Integer(), nullable=True, comment="NULL: the feature is refused."),
        sa.Column("reason", sa.Text(), nullable=False, comment="The provider's words."),
        sa.Column("learned_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint(
            "address", "model", "feature", name=op.f("model_capabilities_pkey")
        ),
        comment="Features that served models refuse, and their limits; forgotten after a week.",
    )
    op.create_table(
        "workers",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("concurrency", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("workers_pkey")),
        comment="Worker processes; those not seen for a while are dead.",
    )
    op.create_table(
        "job_rates",
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("tokens", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("actor", name=op.f("job_rates_pkey")),
        comment="Jobs that each limited key may still submit, as of a time.",
    )
    op.create_table(
        "idempotent_requests",
        sa.Column(
            "namespace",
            sa.Text(collation="C"),
            nullable=False,
            comment="Root of the key that sent it.",
        ),
        sa.Column("actor", sa.Text(), nullable=False, comment="The key that sent it."),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column(
            "fingerprint", sa.Text(), nullable=False, comment="Hash of the route and the body."
        ),
        sa.Column("answer", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("namespace", "key", name=op.f("idempotent_requests_pkey")),
        comment="Answers to requests with an Idempotency-Key, for a day.",
    )
    op.create_index(
        "idempotent_requests_created_at_index", "idempotent_requests", ["created_at"], unique=False
    )


def _create_changes() -> None:
    """Create tables: changes that jobs propose and make, and progress of consolidations."""
    op.create_table(
        "job_changes",
        sa.Column("job_id", sa.Text(collation="C"), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("namespace", sa.Text(collation="C"), nullable=False),
        sa.Column("key", sa.Text(collation="C"), nullable=False),
        sa.Column("action", sa.Text(), nullable=False, comment="insert, update or delete."),
        sa.Column(
            "state",
            sa.Text(),
            nullable=False,
            comment="proposed, applied, rejected, discarded or undone.",
        ),
        sa.Column("kind", sa.Text(), nullable=True),
        sa.Column(
            "value",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="The value to write; NULL for a delete.",
        ),
        sa.Column(
            "details",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="Importance, times, source.",
        ),
        sa.Column(
            "reason", sa.Text(), nullable=True, comment="The model's reason, if it gave one."
        ),
        sa.Column(
            "version_before", sa.BigInteger(), nullable=True, comment="NULL if there was no item."
        ),
        sa.Column("version_after", sa.BigInteger(), nullable=True, comment="NULL until applied."),
        sa.Column(
            "value_bytes",
            sa.Integer(),
            sa.Computed("octet_length(value::text)", persisted=True),
            nullable=True,
            comment="Bytes of the JSON text.",
        ),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name=op.f("job_changes_job_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", "number", name=op.f("job_changes_pkey")),
        comment="Changes that jobs proposed or made, one row for each item.",
    )
    op.create_index(
        "job_changes_namespace_index", "job_changes", ["namespace", "key"], unique=False
    )
    op.create_table(
        "consolidation_marks",
        sa.Column(
            "namespace",
            sa.Text(collation="C"),
            nullable=False,
            comment="Consolidated, with all below it.",
        ),
        sa.Column("strategy", sa.Text(), nullable=False, comment="By which it was."),
        sa.Column(
            "consolidated_until",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="Newest change looked at.",
        ),
        sa.PrimaryKeyConstraint("namespace", "strategy", name=op.f("consolidation_marks_pkey")),
        comment="Up to where each namespace has been consolidated.",
    )


def _create_managers_and_threads() -> None:
    """Create tables: managers and threads."""
    op.create_table(
        "managers",
        sa.Column(
            "namespace",
            sa.Text(collation="C"),
            nullable=False,
            comment="Root of the keys that may use it.",
        ),
        sa.Column("name", sa.Text(collation="C"), nullable=False),
        sa.Column(
            "config",
            postgresql.JSON(astext_type=sa.Text()),
            nullable=False,
            comment="As text: jsonb would sort members.",
        ),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("namespace", "name", name=op.f("managers_pkey")),
        comment="Stored configurations of extraction.",
    )
    op.create_table(
        "threads",
        sa.Column(
            "root",
            sa.Text(collation="C"),
            nullable=False,
            comment="Root of the key that appends to it.",
        ),
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column(
            "namespace",
            sa.Text(collation="C"),
            nullable=False,
            comment="Namespace of its memories.",
        ),
        sa.Column(
            "schedule",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="When and how memories are extracted; NULL: not at all.",
        ),
        sa.Column("next_position", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("extracted_until", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "pending_since",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="Arrival of the oldest message not extracted from.",
        ),
        sa.Column(
            "summary",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="The running summary.",
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("root", "id", "namespace", name=op.f("threads_pkey")),
        comment="Conversations, and how far memories were extracted from them.",
    )
    op.create_index("threads_namespace_index", "threads", ["namespace"], unique=False)
    op.create_table(
        "thread_messages",
        sa.Column("root", sa.Text(collation="C"), nullable=False),
        sa.Column("thread_id", sa.Text(collation="C"), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("namespace", sa.Text(collation="C"), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("message", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "message_bytes",
            sa.Integer(),
            sa.Computed("octet_length(message::text)", persisted=True),
            nullable=False,
            comment="Bytes of the JSON text.",
        ),
        sa.ForeignKeyConstraint(
            ["root", "thread_id", "namespace"],
            ["threads.root", "threads.id", "threads.namespace"],
            name=op.f("thread_messages_root_thread_id_namespace_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "root", "thread_id", "namespace", "position", name=op.f("thread_messages_pkey")
        ),
        comment="Messages of threads, in order.",
    )
    op.create_index(
        "thread_messages_message_id_key",
        "thread_messages",
        ["root", "thread_id", "namespace", "message_id"],
        unique=True,
    )


def _create_prompts() -> None:
    """Create tables: prompts."""
    op.create_table(
        "prompts",
        sa.Column(
            "namespace",
            sa.Text(collation="C"),
            nullable=False,
            comment="Root of the keys that may use it.",
        ),
        sa.Column("name", sa.Text(collation="C"), nullable=False),
        sa.Column(
            "revision", sa.Integer(), nullable=False, comment="Counts every change; the ETag."
        ),
        sa.Column("newest", sa.Integer(), nullable=False, comment="Number of the last version."),
        sa.Column("update_instructions", sa.Text(), nullable=True),
        sa.Column("when_to_update", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("namespace", "name", name=op.f("prompts_pkey")),
        comment="Named instruction texts.",
    )
    op.create_table(
        "prompt_versions",
        sa.Column("namespace", sa.Text(collation="C"), nullable=False),
        sa.Column("name", sa.Text(collation="C"), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False, comment="From 1."),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column(
            "based_on",
            sa.Integer(),
            nullable=True,
            comment="Number of the version that it improves.",
        ),
        sa.Column(
            "analysis", sa.Text(), nullable=True, comment="Why the text is as it is, if known."
        ),
        sa.Column(
            "actor", sa.Text(), nullable=False, comment="The key, and the job if it was one."
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["namespace", "name"],
            ["prompts.namespace", "prompts.name"],
            name=op.f("prompt_versions_namespace_name_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("namespace", "name", "number", name=op.f("prompt_versions_pkey")),
        comment="Every text of every prompt; never changed.",
    )
    op.create_table(
        "prompt_labels",
        sa.Column("namespace", sa.Text(collation="C"), nullable=False),
        sa.Column("name", sa.Text(collation="C"), nullable=False),
        sa.Column("label", sa.Text(collation="C"), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False, comment="The version it points to."),
        sa.Column(
            "earlier",
            postgresql.ARRAY(sa.Integer()),
            nullable=False,
            comment="Versions it pointed to before, the last one last; a rollback takes it.",
        ),
        sa.Column("actor", sa.Text(), nullable=False, comment="The last to move it."),
        sa.Column("moved_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["namespace", "name"],
            ["prompts.namespace", "prompts.name"],
            name=op.f("prompt_labels_namespace_name_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("namespace", "name", "label", name=op.f("prompt_labels_pkey")),
        comment="Names of versions, such as production.",
    )


def _confine_to_roots() -> None:
    """Let a connection see only rows of its root."""
    for table in CONFINED:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        # A session without a root sees nothing. The coalesce also keeps the planner from taking
        # starts_with for a condition that one row in two hundred meets.
        op.execute(
            f"CREATE POLICY confine_to_root ON {table} USING (coalesce("
            "starts_with(namespace, (SELECT current_setting('memoryd.root', true))), false))"
        )


def _forget_ended_items() -> None:
    """Delete the terms and usage of items that end."""
    # A foreign key would do the same, and look the item up once more for every term written.
    op.execute("""
        CREATE FUNCTION forget_ended_items() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            DELETE FROM terms USING ended WHERE terms.item_id = ended.id;
            DELETE FROM item_usage USING ended
            WHERE item_usage.namespace = ended.namespace AND item_usage.item_id = ended.id;
            RETURN NULL;
        END $$
    """)
    op.execute(
        "CREATE TRIGGER forget_ended_items AFTER DELETE ON items "
        "REFERENCING OLD TABLE AS ended FOR EACH STATEMENT EXECUTE FUNCTION forget_ended_items()"
    )
