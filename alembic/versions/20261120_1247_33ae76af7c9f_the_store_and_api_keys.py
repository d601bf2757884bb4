"""The store and API keys."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from pgvector.sqlalchemy import HALFVEC
from sqlalchemy.dialects import postgresql

revision: str = "33ae76af7c9f"
down_revision: str | Sequence[str] | None = None
branch_labels = None
depends_on = None

CONFINED = ("namespaces", "items", "item_versions", "passages")


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("CREATE EXTENSION IF NOT EXISTS vector")
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False),
        sa.Column("root", sa.Text(collation="C"), nullable=False),
        sa.Column("grants", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("api_keys_pkey")),
        comment="API keys; the secret itself is never stored.",
    )
    op.create_table(
        "embedding_models",
        sa.Column("id", sa.SmallInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("dimensions", sa.Integer(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("embedding_models_pkey")),
        comment="Models whose vectors the database holds; one is active.",
    )
    op.create_index(
        "embedding_models_active_index",
        "embedding_models",
        ["active"],
        unique=True,
        postgresql_where=sa.text("active"),
    )
    op.create_table(
        "item_versions",
        sa.Column("namespace", sa.Text(collation="C"), nullable=False),
        sa.Column("key", sa.Text(collation="C"), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column(
            "value",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="NULL where the item ended.",
        ),
        sa.Column("index_paths", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("importance", sa.Double(), nullable=True),
        sa.Column("valid_from", sa.DateTime(timezone=True), nullable=True),
        sa.Column("valid_to", sa.DateTime(timezone=True), nullable=True),
        sa.Column("source", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("namespace", "key", "version", name=op.f("item_versions_pkey")),
        comment="Every state an item has had; rows are never changed and outlive the item.",
    )
    op.create_table(
        "namespaces",
        sa.Column("namespace", sa.Text(collation="C"), nullable=False),
        sa.Column(
            "labels",
            postgresql.ARRAY(sa.Text()),
            sa.Computed("string_to_array(rtrim(namespace, E'\\x1f'), E'\\x1f')", persisted=True),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("namespace", name=op.f("namespaces_pkey")),
        comment="Namespaces that hold items; emptied ones are removed by the sweeper.",
    )
    op.create_table(
        "items",
        sa.Column("namespace", sa.Text(collation="C"), nullable=False),
        sa.Column("key", sa.Text(collation="C"), nullable=False),
        sa.Column("value", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column(
            "index_paths",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="Paths to embed; [] for none, NULL for the setting's.",
        ),
        sa.Column("importance", sa.Double(), nullable=True),
        sa.Column("valid_from", sa.DateTime(timezone=True), nullable=True),
        sa.Column("valid_to", sa.DateTime(timezone=True), nullable=True),
        sa.Column("source", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("ttl", sa.Interval(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "jsonb_typeof(value) = 'object'", name=op.f("items_value_is_object_check")
        ),
        sa.CheckConstraint(
            "importance BETWEEN 0 AND 1", name=op.f("items_importance_in_range_check")
        ),
        sa.ForeignKeyConstraint(
            ["namespace"], ["namespaces.namespace"], name=op.f("items_namespace_fkey")
        ),
        sa.PrimaryKeyConstraint("namespace", "key", name=op.f("items_pkey")),
        comment="The present state of every item.",
    )
    op.create_index(
        "items_expires_at_index",
        "items",
        ["expires_at"],
        unique=False,
        postgresql_where=sa.text("expires_at IS NOT NULL"),
    )
    op.create_table(
        "passages",
        sa.Column("namespace", sa.Text(collation="C"), nullable=False),
        sa.Column("key", sa.Text(collation="C"), nullable=False),
        sa.Column("model_id", sa.SmallInteger(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("embedding", HALFVEC(), nullable=False),
        sa.ForeignKeyConstraint(
            ["model_id"], ["embedding_models.id"], name=op.f("passages_model_id_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["namespace", "key"],
            ["items.namespace", "items.key"],
            name=op.f("passages_namespace_key_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "namespace", "key", "model_id", "ordinal", name=op.f("passages_pkey")
        ),
        comment="Pieces of the items' indexed text with their embeddings.",
    )
    # Vectors stay in the row: fetching each from a side table would dominate an exact scan.
    op.execute("ALTER TABLE passages ALTER COLUMN embedding SET STORAGE PLAIN")
    for table in CONFINED:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        # A session that has not said what it may see sees nothing. The coalesce also keeps the
        # planner from taking starts_with for a condition that one row in two hundred meets.
        op.execute(
            f"CREATE POLICY confine_to_root ON {table} USING (coalesce("
            "starts_with(namespace, (SELECT current_setting('memoryd.root', true))), false))"
        )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("passages")
    op.drop_index(
        "items_expires_at_index",
        table_name="items",
        postgresql_where=sa.text("expires_at IS NOT NULL"),
    )
    op.drop_table("items")
    op.drop_table("namespaces")
    op.drop_table("item_versions")
    op.drop_index(
        "embedding_models_active_index",
        table_name="embedding_models",
        postgresql_where=sa.text("active"),
    )
    op.drop_table("embedding_models")
    op.drop_table("api_keys")
