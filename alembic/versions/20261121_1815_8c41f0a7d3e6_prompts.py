"""Prompts."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "8c41f0a7d3e6"
down_revision: str | Sequence[str] | None = "d1994effae7d"
branch_labels = None
depends_on = None

CONFINED = ("prompts", "prompt_versions", "prompt_labels")


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "prompts",
        sa.Column(
            "namespace",
            sa.Text(collation="C"),
            nullable=False,
            comment="Root of the keys that may use it.",
        ),
        sa.Column("name", sa.Text(collation="C"), nullable=False),
        sa.Column(
            "revision", sa.Integer(), nullable=False, comment="Counts every change; the ETag."
        ),
        sa.Column("newest", sa.Integer(), nullable=False, comment="Number of the last version."),
        sa.Column("update_instructions", sa.Text(), nullable=True),
        sa.Column("when_to_update", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("namespace", "name", name=op.f("prompts_pkey")),
        comment="Named instruction texts.",
    )
    op.create_table(
        "prompt_versions",
        sa.Column("namespace", sa.Text(collation="C"), nullable=False),
        sa.Column("name", sa.Text(collation="C"), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False, comment="From 1."),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column(
            "based_on",
            sa.Integer(),
            nullable=True,
            comment="Number of the version that it improves.",
        ),
        sa.Column(
            "analysis",
            sa.Text(),
            nullable=True,
            comment="Why the text is as it is, if known.",
        ),
        sa.Column(
            "actor", sa.Text(), nullable=False, comment="The key, and the job if it was one."
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["namespace", "name"],
            ["prompts.namespace", "prompts.name"],
            name=op.f("prompt_versions_namespace_name_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("namespace", "name", "number", name=op.f("prompt_versions_pkey")),
        comment="Every text of every prompt; never changed.",
    )
    op.create_table(
        "prompt_labels",
        sa.Column("namespace", sa.Text(collation="C"), nullable=False),
        sa.Column("name", sa.Text(collation="C"), nullable=False),
        sa.Column("label", sa.Text(collation="C"), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False, comment="The version it points to."),
        sa.Column(
            "earlier",
            postgresql.ARRAY(sa.Integer()),
            nullable=False,
            comment="Versions it pointed to before, the last one last; a rollback takes it.",
        ),
        sa.Column("actor", sa.Text(), nullable=False, comment="The last to move it."),
        sa.Column("moved_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["namespace", "name"],
            ["prompts.namespace", "prompts.name"],
            name=op.f("prompt_labels_namespace_name_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("namespace", "name", "label", name=op.f("prompt_labels_pkey")),
        comment="Names of versions, such as production.",
    )
    for table in CONFINED:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY confine_to_root ON {table} USING (coalesce("
            "starts_with(namespace, (SELECT current_setting('memoryd.root', true))), false))"
        )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("prompt_labels")
    op.drop_table("prompt_versions")
    op.drop_table("prompts")
