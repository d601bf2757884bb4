"""Jobs: columns with plainer names."""

from collections.abc import Sequence

from alembic import op

revision: str = "c41d7e9a02f6"
down_revision: str | Sequence[str] | None = "b7e05c91d3a8"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.alter_column("jobs", "waiting_since", new_column_name="blocked_since")
    op.alter_column("model_calls", "stop", new_column_name="finish_reason")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.alter_column("model_calls", "finish_reason", new_column_name="stop")
    op.alter_column("jobs", "blocked_since", new_column_name="waiting_since")
