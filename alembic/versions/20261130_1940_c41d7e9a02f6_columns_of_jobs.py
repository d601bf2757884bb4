"""Jobs: plainer names and comments of columns."""

from collections.abc import Sequence

from alembic import op

revision: str = "c41d7e9a02f6"
down_revision: str | Sequence[str] | None = "b7e05c91d3a8"
branch_labels = None
depends_on = None


COLUMNS = {
    ("jobs", "namespace"): (
        "What the job is about, or its root.",
        "Namespace of its memories, or its root.",
    ),
    ("jobs", "root"): ("Of the key that submitted it.", "Root of the key that submitted it."),
    ("jobs", "grants"): (
        "What the job may do: as the key might.",
        "The key's grants, which the job has too.",
    ),
    ("jobs", "priority"): (
        "0: somebody waits; 1: nobody does.",
        "0: a client waits for it; 1: background.",
    ),
    ("jobs", "events"): ("So far.", "Number of events."),
    ("jobs", "calls"): ("Of models.", "Number of model calls."),
    ("jobs", "isolated"): (
        "Runs alone in a process: one that it was in has died.",
        "Runs alone in a process, because a process it ran in died.",
    ),
    ("model_calls", "purpose"): ("What the model was asked for.", "Purpose of the call."),
    ("model_calls", "cost_usd"): (
        "NULL where the model's price is not known.",
        "NULL if the price of the model is unknown.",
    ),
    ("idempotent_requests", "fingerprint"): (
        "Of the route and the body.",
        "Hash of the route and the body.",
    ),
}
TABLES = {
    "jobs": (
        "Every job, from submission to its end; removed when it is old.",
        "Jobs, from submission until some time after their end.",
    ),
    "job_events": ("What a job reported, in order.", "Events that jobs reported, in order."),
    "model_calls": (
        "What each call of a model cost, written when it was answered.",
        "Model calls and their cost, recorded when the model answers.",
    ),
    "workers": (
        "Processes that work on jobs; those not seen for a while are dead.",
        "Worker processes; those not seen for a while are dead.",
    ),
    "job_rates": (
        "How many jobs each limited key may still submit, as of a moment.",
        "Jobs that each limited key may still submit, as of a time.",
    ),
    "idempotent_requests": (
        "What was created under an Idempotency-Key, for a day.",
        "Answers to requests with an Idempotency-Key, for a day.",
    ),
}


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.alter_column("jobs", "waiting_since", new_column_name="blocked_since")
    op.alter_column("model_calls", "stop", new_column_name="finish_reason")
    for (table, column), (_, comment) in COLUMNS.items():
        op.alter_column(table, column, comment=comment)
    for table, (_, comment) in TABLES.items():
        op.create_table_comment(table, comment)


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for table, (comment, _) in TABLES.items():
        op.create_table_comment(table, comment)
    for (table, column), (comment, _) in COLUMNS.items():
        op.alter_column(table, column, comment=comment)
    op.alter_column("model_calls", "finish_reason", new_column_name="stop")
    op.alter_column("jobs", "blocked_since", new_column_name="waiting_since")
