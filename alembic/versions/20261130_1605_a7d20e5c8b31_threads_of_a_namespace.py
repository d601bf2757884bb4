"""A thread's id is its own in each namespace, and no longer in the whole root."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "a7d20e5c8b31"
down_revision: str | Sequence[str] | None = "4f1c6a2b9d70"
branch_labels = None
depends_on = None

_WAITING = sa.text("state = 'queued' AND kind = 'extract_thread' AND attempt = 0")


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    _drop_keys("thread_messages_root_thread_id_fkey")
    _create_keys("thread_messages_root_thread_id_namespace_fkey", ["namespace"])


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    # Fails, and changes nothing, if an id is used in two namespaces of a root.
    _drop_keys("thread_messages_root_thread_id_namespace_fkey")
    _create_keys("thread_messages_root_thread_id_fkey", [])


def _drop_keys(foreign_key: str) -> None:
    op.drop_constraint(foreign_key, "thread_messages", type_="foreignkey")
    op.drop_constraint("thread_messages_pkey", "thread_messages", type_="primary")
    op.drop_constraint("threads_pkey", "threads", type_="primary")
    op.drop_index("thread_messages_message_id_key", table_name="thread_messages")
    op.drop_index("jobs_waiting_thread_key", table_name="jobs", postgresql_where=_WAITING)


def _create_keys(foreign_key: str, place: list[str]) -> None:
    op.create_primary_key("threads_pkey", "threads", ["root", "id", *place])
    op.create_primary_key(
        "thread_messages_pkey", "thread_messages", ["root", "thread_id", *place, "position"]
    )
    op.create_foreign_key(
        foreign_key,
        "thread_messages",
        "threads",
        ["root", "thread_id", *place],
        ["root", "id", *place],
        ondelete="CASCADE",
    )
    op.create_index(
        "thread_messages_message_id_key",
        "thread_messages",
        ["root", "thread_id", *place, "message_id"],
        unique=True,
    )
    op.create_index(
        "jobs_waiting_thread_key",
        "jobs",
        ["root", "thread_id", *place],
        unique=True,
        postgresql_where=_WAITING,
    )
