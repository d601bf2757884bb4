"""Sizes of values beside them, so that a page of them can be bounded without reading them."""

from collections.abc import Sequence

from alembic import op

revision: str = "c3e9b5d8a614"
down_revision: str | Sequence[str] | None = "b6d4e8f1a205"
branch_labels = None
depends_on = None

_SIZES = (
    ("items", "value_bytes", "octet_length(value::text)", "NOT NULL"),
    ("item_versions", "value_bytes", "octet_length(value::text)", ""),
    ("thread_messages", "message_bytes", "octet_length(message::text)", "NOT NULL"),
    ("job_changes", "value_bytes", "octet_length(value::text)", ""),
)


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("SET LOCAL statement_timeout = 0")  # the tables are rewritten
    for table, column, size, null in _SIZES:
        op.execute(
            f"ALTER TABLE {table} ADD COLUMN {column} integer "
            f"GENERATED ALWAYS AS ({size}) STORED {null}"
        )
        op.execute(f"COMMENT ON COLUMN {table}.{column} IS 'Bytes of the JSON text.'")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for table, column, _, _ in reversed(_SIZES):
        op.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
