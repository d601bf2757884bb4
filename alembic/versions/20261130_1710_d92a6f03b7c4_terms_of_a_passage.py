"""Terms of a passage: found by item and ordinal.

By item alone, each passage of a large item went over the terms of all of its passages: a value of
1 MiB took 25 seconds.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "d92a6f03b7c4"
down_revision: str | Sequence[str] | None = "3e7b91c4d2f8"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_index("terms_item_id_index", "terms")
    op.create_index("terms_item_id_index", "terms", ["item_id", "ordinal"])


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_index("terms_item_id_index", "terms")
    op.create_index("terms_item_id_index", "terms", ["item_id"])
