"""Tables of jobs: the jobs, their events, model calls and replies, the workers, and key rates."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from app.db.tables import BYTEWISE, TIME, metadata

jobs = Table(
    "jobs",
    metadata,
    Column("id", BYTEWISE, primary_key=True, comment="Begins with the time, so ids are in order."),
    Column(
        "namespace", BYTEWISE, nullable=False, comment="Namespace of its memories, or its root."
    ),
    Column("root", BYTEWISE, nullable=False, comment="Root of the key that submitted it."),
    Column("actor", Text, nullable=False),
    Column("grants", JSONB, nullable=False, comment="The key's grants, which the job has too."),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("request", JSONB, nullable=False),
    Column("manager", Text),
    Column("thread_id", Text),
    Column("concurrency_key", BYTEWISE, comment="Jobs with the same key run one after another."),
    Column("dedupe_key", BYTEWISE, comment="Only one job of a kind with the key waits to start."),
    Column(
        "priority", SmallInteger, nullable=False, comment="0: a client waits for it; 1: background."
    ),
    Column("attempt", Integer, nullable=False, server_default=text("0")),
    Column("max_attempts", Integer, nullable=False),
    Column("run_at", TIME, nullable=False),
    Column("worker", Text),
    Column("lease_until", TIME, comment="A worker that is silent for longer has lost the job."),
    Column("cancel_requested", Boolean, nullable=False, server_default=text("false")),
    Column(
        "isolated",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="Runs alone in a process, because a process it ran in died.",
    ),
    Column("blocked_since", TIME, comment="Waits for the operator to correct the configuration."),
    Column(
        "events", Integer, nullable=False, server_default=text("0"), comment="Number of events."
    ),
    Column(
        "calls", Integer, nullable=False, server_default=text("0"), comment="Number of model calls."
    ),
    Column("result", JSONB),
    Column("error", JSONB),
    Column("created_at", TIME, nullable=False),
    Column("started_at", TIME),
    Column("finished_at", TIME),
    CheckConstraint(
        "state IN ('queued', 'running', 'awaiting_review', 'succeeded', 'failed', 'cancelled')",
        name="state_is_known",
    ),
    Index(
        "jobs_queue_index",
        "root",
        "priority",
        "run_at",
        "id",
        postgresql_where=text("state = 'queued'"),
    ),
    Index("jobs_running_index", "concurrency_key", postgresql_where=text("state = 'running'")),
    Index(
        "jobs_dedupe_key",
        "root",
        "dedupe_key",
        "namespace",
        "kind",
        unique=True,
        postgresql_where=text("state = 'queued' AND attempt = 0 AND dedupe_key IS NOT NULL"),
    ),
    Index("jobs_namespace_index", "namespace", "id"),
    Index("jobs_thread_index", "thread_id", "id", postgresql_where=text("thread_id IS NOT NULL")),
    Index("jobs_failed_index", "kind", postgresql_where=text("state = 'failed'")),
    Index(
        "jobs_finished_at_index", "finished_at", postgresql_where=text("finished_at IS NOT NULL")
    ),
    comment="Jobs, from submission until some time after their end.",
)

job_events = Table(
    "job_events",
    metadata,
    Column("job_id", BYTEWISE, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("namespace", BYTEWISE, nullable=False),
    Column("event", Text, nullable=False),
    Column("data", JSONB, nullable=False),
    Column("recorded_at", TIME, nullable=False),
    PrimaryKeyConstraint("job_id", "number"),
    comment="Events that jobs reported, in order.",
)

model_calls = Table(
    "model_calls",
    metadata,
    Column("job_id", BYTEWISE, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("namespace", BYTEWISE, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("purpose", Text, nullable=False, comment="Purpose of the call."),
    Column("model", Text, nullable=False),
    Column("finish_reason", Text, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("cost_usd", Double, comment="NULL if the price of the model is unknown."),
    Column("milliseconds", Integer, nullable=False),
    Column("recorded_at", TIME, nullable=False),
    PrimaryKeyConstraint("job_id", "number"),
    comment="Model calls and their cost, recorded when the model answers.",
)

job_replies = Table(
    "job_replies",
    metadata,
    Column("job_id", BYTEWISE, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("digest", BYTEWISE, nullable=False, comment="Hash of the model and the request."),
    Column("namespace", BYTEWISE, nullable=False),
    Column("reply", Text, nullable=False, comment="The reply as JSON."),
    PrimaryKeyConstraint("job_id", "digest"),
    comment="Replies of models to a job that has not ended: no other attempt pays for them again.",
)

workers = Table(
    "workers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("concurrency", Integer, nullable=False),
    Column("started_at", TIME, nullable=False),
    Column("seen_at", TIME, nullable=False),
    comment="Worker processes; those not seen for a while are dead.",
)

job_rates = Table(
    "job_rates",
    metadata,
    Column("actor", Text, primary_key=True),
    Column("tokens", Double, nullable=False),
    Column("updated_at", TIME, nullable=False),
    comment="Jobs that each limited key may still submit, as of a time.",
)
