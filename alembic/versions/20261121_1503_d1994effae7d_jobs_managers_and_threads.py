"""Jobs, managers and threads."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "d1994effae7d"
down_revision: str | Sequence[str] | None = "5b0c3d1f7a42"
branch_labels = None
depends_on = None

CONFINED = (
    "jobs",
    "job_events",
    "model_calls",
    "idempotent_requests",
    "managers",
    "job_changes",
    "consolidation_marks",
    "threads",
    "thread_messages",
)


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
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
    op.create_table(
        "idempotent_requests",
        sa.Column(
            "namespace",
            sa.Text(collation="C"),
            nullable=False,
            comment="Root of the key that sent it.",
        ),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False, comment="Of the route and the body."),
        sa.Column("answer", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("namespace", "key", name=op.f("idempotent_requests_pkey")),
        comment="What was created under an Idempotency-Key, for a day.",
    )
    op.create_index(
        "idempotent_requests_created_at_index", "idempotent_requests", ["created_at"], unique=False
    )
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
            comment="What the job is about, or its root.",
        ),
        sa.Column(
            "root", sa.Text(collation="C"), nullable=False, comment="Of the key that submitted it."
        ),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column(
            "grants",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="What the job may do: as the key might.",
        ),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("request", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("manager", sa.Text(), nullable=True),
        sa.Column("thread_id", sa.Text(), nullable=True),
        sa.Column(
            "lane",
            sa.Text(collation="C"),
            nullable=True,
            comment="Jobs of one lane run one after another.",
        ),
        sa.Column(
            "priority",
            sa.SmallInteger(),
            nullable=False,
            comment="0: somebody waits; 1: nobody does.",
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
            "events",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="So far.",
        ),
        sa.Column(
            "calls",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Of models.",
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
        comment="Every job, from submission to its end; removed when it is old.",
    )
    op.create_index(
        "jobs_finished_at_index",
        "jobs",
        ["finished_at"],
        unique=False,
        postgresql_where=sa.text("finished_at IS NOT NULL"),
    )
    op.create_index(
        "jobs_failed_index", "jobs", ["kind"], postgresql_where=sa.text("state = 'failed'")
    )
    op.create_index(
        "jobs_thread_index",
        "jobs",
        ["thread_id", "id"],
        postgresql_where=sa.text("thread_id IS NOT NULL"),
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
        ["lane"],
        unique=False,
        postgresql_where=sa.text("state = 'running'"),
    )
    op.create_index(
        "jobs_waiting_thread_key",
        "jobs",
        ["root", "thread_id"],
        unique=True,
        postgresql_where=sa.text("state = 'queued' AND kind = 'extract_thread' AND attempt = 0"),
    )
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
        sa.PrimaryKeyConstraint("root", "id", name=op.f("threads_pkey")),
        comment="Conversations, and how far memories were extracted from them.",
    )
    op.create_index("threads_namespace_index", "threads", ["namespace"], unique=False)
    op.create_table(
        "workers",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("concurrency", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("workers_pkey")),
        comment="Processes that work on jobs; those not seen for a while are dead.",
    )
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
            comment="Importance, validity, source.",
        ),
        sa.Column(
            "reason", sa.Text(), nullable=True, comment="The model's reason, if it gave one."
        ),
        sa.Column(
            "version_before", sa.BigInteger(), nullable=True, comment="NULL if there was no item."
        ),
        sa.Column("version_after", sa.BigInteger(), nullable=True, comment="NULL until applied."),
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
        comment="What a job reported, in order.",
    )
    op.create_table(
        "model_calls",
        sa.Column("job_id", sa.Text(collation="C"), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("namespace", sa.Text(collation="C"), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False, comment="What the model was asked for."),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("stop", sa.Text(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), nullable=False),
        sa.Column(
            "cost_usd",
            sa.Double(),
            nullable=True,
            comment="NULL where the model's price is not known.",
        ),
        sa.Column("milliseconds", sa.Integer(), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name=op.f("model_calls_job_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", "number", name=op.f("model_calls_pkey")),
        comment="What each call of a model cost, written when it was answered.",
    )
    op.create_table(
        "thread_messages",
        sa.Column("root", sa.Text(collation="C"), nullable=False),
        sa.Column("thread_id", sa.Text(collation="C"), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("namespace", sa.Text(collation="C"), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("message", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["root", "thread_id"],
            ["threads.root", "threads.id"],
            name=op.f("thread_messages_root_thread_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("root", "thread_id", "position", name=op.f("thread_messages_pkey")),
        comment="Messages of threads, in order.",
    )
    op.create_index(
        "thread_messages_message_id_key",
        "thread_messages",
        ["root", "thread_id", "message_id"],
        unique=True,
    )
    for table in CONFINED:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY confine_to_root ON {table} USING (coalesce("
            "starts_with(namespace, (SELECT current_setting('memoryd.root', true))), false))"
        )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_index("thread_messages_message_id_key", table_name="thread_messages")
    op.drop_table("thread_messages")
    op.drop_table("model_calls")
    op.drop_table("job_events")
    op.drop_index("job_changes_namespace_index", table_name="job_changes")
    op.drop_table("job_changes")
    op.drop_table("workers")
    op.drop_index("threads_namespace_index", table_name="threads")
    op.drop_table("threads")
    op.drop_table("managers")
    op.drop_index(
        "jobs_waiting_thread_key",
        table_name="jobs",
        postgresql_where=sa.text("state = 'queued' AND kind = 'extract_thread' AND attempt = 0"),
    )
    op.drop_index(
        "jobs_running_index", table_name="jobs", postgresql_where=sa.text("state = 'running'")
    )
    op.drop_index(
        "jobs_queue_index", table_name="jobs", postgresql_where=sa.text("state = 'queued'")
    )
    op.drop_index(
        "jobs_failed_index", table_name="jobs", postgresql_where=sa.text("state = 'failed'")
    )
    op.drop_index(
        "jobs_thread_index",
        table_name="jobs",
        postgresql_where=sa.text("thread_id IS NOT NULL"),
    )
    op.drop_index("jobs_namespace_index", table_name="jobs")
    op.drop_index(
        "jobs_finished_at_index",
        table_name="jobs",
        postgresql_where=sa.text("finished_at IS NOT NULL"),
    )
    op.drop_table("jobs")
    op.drop_index("idempotent_requests_created_at_index", table_name="idempotent_requests")
    op.drop_table("idempotent_requests")
    op.drop_table("consolidation_marks")
