"""Jobs that run alone after their process died, and jobs that wait for the configuration."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "3e7b91c4d2f8"
down_revision: str | Sequence[str] | None = "c3e9b5d8a614"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column(
        "jobs",
        sa.Column(
            "isolated",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="Runs alone in a process: one that it was in has died.",
        ),
    )
    op.add_column(
        "jobs",
        sa.Column(
            "waiting_since",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="Waits for the operator to correct the configuration.",
        ),
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_column("jobs", "waiting_since")
    op.drop_column("jobs", "isolated")
