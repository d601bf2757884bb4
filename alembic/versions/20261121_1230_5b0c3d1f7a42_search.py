"""Terms, usage and pins of items; passages know the index and the item they belong to."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "5b0c3d1f7a42"
down_revision: str | Sequence[str] | None = "33ae76af7c9f"
branch_labels = None
depends_on = None

CONFINED = ("terms", "item_usage")
BYTEWISE = sa.Text(collation="C")
POSITION = """
CASE WHEN jsonb_typeof(source -> 'position') = 'number'
    AND (source -> 'position')::numeric BETWEEN -9e15 AND 9e15
THEN (source -> 'position')::numeric::bigint END
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    _rename_models_to_indexes()
    _widen_items()
    _widen_passages()
    _create_terms()
    _create_usage()
    for table in CONFINED:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY confine_to_root ON {table} USING (coalesce("
            "starts_with(namespace, (SELECT current_setting('memoryd.root', true))), false))"
        )
    _forget_ended_items()


def _rename_models_to_indexes() -> None:
    op.rename_table("embedding_models", "passage_indexes")
    for old, new in (
        ("embedding_models_pkey", "passage_indexes_pkey"),
        ("embedding_models_active_index", "passage_indexes_active_index"),
    ):
        op.execute(f"ALTER INDEX {old} RENAME TO {new}")
    op.execute("ALTER SEQUENCE embedding_models_id_seq RENAME TO passage_indexes_id_seq")
    op.alter_column(
        "passage_indexes",
        "name",
        new_column_name="embedding",
        comment="As MEMORYD_EMBEDDING names it, or none.",
    )
    # Passages from before have no terms: no vocabulary is called so, and a reindex is due.
    op.add_column(
        "passage_indexes",
        sa.Column(
            "vocabulary",
            sa.Text(),
            server_default="",
            nullable=False,
            comment="Version and language of the terms.",
        ),
    )
    op.alter_column("passage_indexes", "vocabulary", server_default=None)
    op.create_table_comment(
        "passage_indexes", "The ways in which passages were made; one is active."
    )


def _widen_items() -> None:
    op.add_column(
        "items",
        sa.Column("pinned", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    )
    op.add_column("item_versions", sa.Column("pinned", sa.Boolean(), nullable=True))
    op.add_column(
        "items",
        sa.Column(
            "id",
            sa.BigInteger(),
            sa.Identity(always=False),
            nullable=False,
            comment="Short name for what refers here.",
        ),
    )
    op.add_column(
        "items",
        sa.Column("thread_id", sa.Text(), sa.Computed("source ->> 'thread_id'", persisted=True)),
    )
    op.add_column(
        "items", sa.Column("position", sa.BigInteger(), sa.Computed(POSITION, persisted=True))
    )
    op.create_index("items_id_index", "items", ["id"])
    op.create_index(
        "items_pinned_index", "items", ["namespace"], postgresql_where=sa.text("pinned")
    )
    op.create_index(
        "items_thread_index",
        "items",
        ["namespace", "thread_id", "position"],
        postgresql_where=sa.text("thread_id IS NOT NULL"),
    )


def _widen_passages() -> None:
    op.alter_column("passages", "model_id", new_column_name="index_id")
    op.execute(
        "ALTER TABLE passages RENAME CONSTRAINT passages_model_id_fkey TO passages_index_id_fkey"
    )
    op.alter_column("passages", "ordinal", type_=sa.SmallInteger())
    op.alter_column(
        "passages", "embedding", nullable=True, comment="NULL where nothing is embedded."
    )
    op.add_column("passages", sa.Column("item_id", sa.BigInteger(), nullable=True))
    op.add_column(
        "passages",
        sa.Column("length", sa.Integer(), server_default="0", nullable=False, comment="In terms."),
    )
    op.alter_column("passages", "length", server_default=None)
    op.execute(
        "UPDATE passages SET item_id = items.id FROM items "
        "WHERE items.namespace = passages.namespace AND items.key = passages.key"
    )
    op.alter_column("passages", "item_id", nullable=False)


def _create_terms() -> None:
    op.create_table(
        "terms",
        sa.Column("namespace", BYTEWISE, nullable=False),
        sa.Column("term", BYTEWISE, nullable=False),
        sa.Column("item_id", sa.BigInteger(), nullable=False),
        sa.Column("index_id", sa.SmallInteger(), nullable=False),
        sa.Column("ordinal", sa.SmallInteger(), nullable=False),
        sa.Column("frequency", sa.SmallInteger(), nullable=False),
        sa.Column("length", sa.Integer(), nullable=False, comment="Of the passage, in terms."),
        comment=(
            "Which passages hold a term, and how often; a trigger removes those of ended items."
        ),
    )
    op.create_index("terms_term_index", "terms", ["term", "namespace", "index_id"])
    op.create_index("terms_item_id_index", "terms", ["item_id"])


def _create_usage() -> None:
    op.create_table(
        "item_usage",
        sa.Column("namespace", BYTEWISE, nullable=False),
        sa.Column("item_id", sa.BigInteger(), nullable=False),
        sa.Column("uses", sa.BigInteger(), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("namespace", "item_id", name=op.f("item_usage_pkey")),
        comment="How often and when items were read; a trigger removes those of ended items.",
    )


def _forget_ended_items() -> None:
    # A foreign key would do the same, and look the item up once more for every term written.
    op.execute("""
        CREATE FUNCTION forget_ended_items() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            DELETE FROM terms USING ended WHERE terms.item_id = ended.id;
            DELETE FROM item_usage USING ended
            WHERE item_usage.namespace = ended.namespace AND item_usage.item_id = ended.id;
            RETURN NULL;
        END $$
    """)
    op.execute(
        "CREATE TRIGGER forget_ended_items AFTER DELETE ON items "
        "REFERENCING OLD TABLE AS ended FOR EACH STATEMENT EXECUTE FUNCTION forget_ended_items()"
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("DROP TRIGGER forget_ended_items ON items")
    op.execute("DROP FUNCTION forget_ended_items()")
    op.drop_table("item_usage")
    op.drop_table("terms")
    op.execute("DELETE FROM passages WHERE embedding IS NULL")
    op.execute(
        "DELETE FROM passages USING passage_indexes "
        "WHERE passage_indexes.id = index_id AND NOT active"
    )
    op.execute("DELETE FROM passage_indexes WHERE NOT active OR dimensions = 0")
    op.drop_column("passages", "length")
    op.drop_column("passages", "item_id")
    op.alter_column("passages", "embedding", nullable=False, comment=None)
    op.alter_column("passages", "ordinal", type_=sa.Integer())
    op.execute(
        "ALTER TABLE passages RENAME CONSTRAINT passages_index_id_fkey TO passages_model_id_fkey"
    )
    op.alter_column("passages", "index_id", new_column_name="model_id")
    op.drop_index("items_thread_index", "items")
    op.drop_index("items_id_index", "items")
    op.drop_column("items", "position")
    op.drop_column("items", "thread_id")
    op.drop_column("items", "id")
    op.drop_column("item_versions", "pinned")
    op.drop_index("items_pinned_index", "items")
    op.drop_column("items", "pinned")
    op.drop_column("passage_indexes", "vocabulary")
    op.alter_column("passage_indexes", "embedding", new_column_name="name", comment=None)
    op.execute("ALTER SEQUENCE passage_indexes_id_seq RENAME TO embedding_models_id_seq")
    op.execute("ALTER INDEX passage_indexes_active_index RENAME TO embedding_models_active_index")
    op.execute("ALTER INDEX passage_indexes_pkey RENAME TO embedding_models_pkey")
    op.rename_table("passage_indexes", "embedding_models")
    op.create_table_comment(
        "embedding_models", "Models whose vectors the database holds; one is active."
    )
