"""Idempotent requests say which API key sent them."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "4f1c6a2b9d70"
down_revision: str | Sequence[str] | None = "8c41f0a7d3e6"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    # Kept for a day; which key sent those that are there is not known.
    op.execute("TRUNCATE idempotent_requests")
    op.add_column(
        "idempotent_requests",
        sa.Column("actor", sa.Text(), nullable=False, comment="The key that sent it."),
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_column("idempotent_requests", "actor")
