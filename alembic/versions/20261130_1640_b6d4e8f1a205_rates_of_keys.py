"""Rates of keys."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "b6d4e8f1a205"
down_revision: str | Sequence[str] | None = "a7d20e5c8b31"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column(
        "api_keys",
        sa.Column("requests_per_minute", sa.Integer(), nullable=True, comment="NULL: the default."),
    )
    op.add_column(
        "api_keys",
        sa.Column("jobs_per_minute", sa.Integer(), nullable=True, comment="NULL: the default."),
    )
    op.create_table(
        "job_rates",
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("tokens", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("actor", name=op.f("job_rates_pkey")),
        comment="How many jobs each limited key may still submit, as of a moment.",
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("job_rates")
    op.drop_column("api_keys", "jobs_per_minute")
    op.drop_column("api_keys", "requests_per_minute")
