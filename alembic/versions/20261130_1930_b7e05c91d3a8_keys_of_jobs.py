"""Jobs: the lane is a concurrency key, and the one waiting job of a thread has a dedupe key."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "b7e05c91d3a8"
down_revision: str | Sequence[str] | None = "d92a6f03b7c4"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.alter_column(
        "jobs",
        "lane",
        new_column_name="concurrency_key",
        comment="Jobs with the same key run one after another.",
    )
    op.add_column(
        "jobs",
        sa.Column(
            "dedupe_key",
            sa.Text(collation="C"),
            nullable=True,
            comment="Only one job of a kind with the key waits to start.",
        ),
    )
    op.execute("UPDATE jobs SET dedupe_key = thread_id WHERE kind = 'extract_thread'")
    op.drop_index("jobs_waiting_thread_key", "jobs")
    op.create_index(
        "jobs_dedupe_key",
        "jobs",
        ["root", "dedupe_key", "namespace", "kind"],
        unique=True,
        postgresql_where=sa.text("state = 'queued' AND attempt = 0 AND dedupe_key IS NOT NULL"),
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_index("jobs_dedupe_key", "jobs")
    op.create_index(
        "jobs_waiting_thread_key",
        "jobs",
        ["root", "thread_id", "namespace"],
        unique=True,
        postgresql_where=sa.text("state = 'queued' AND kind = 'extract_thread' AND attempt = 0"),
    )
    op.drop_column("jobs", "dedupe_key")
    op.alter_column(
        "jobs",
        "concurrency_key",
        new_column_name="lane",
        comment="Jobs of one lane run one after another.",
    )
