"""Tables of prompts, their versions, and their labels."""

from sqlalchemy import Column, ForeignKeyConstraint, Integer, PrimaryKeyConstraint, Table, Text
from sqlalchemy.dialects.postgresql import ARRAY

from app.db.tables import BYTEWISE, TIME, metadata

prompts = Table(
    "prompts",
    metadata,
    Column("namespace", BYTEWISE, nullable=False, comment="Root of the keys that may use it."),
    Column("name", BYTEWISE, nullable=False),
    Column("revision", Integer, nullable=False, comment="Counts every change; the ETag."),
    Column("newest", Integer, nullable=False, comment="Number of the last version."),
    Column("update_instructions", Text),
    Column("when_to_update", Text),
    Column("created_at", TIME, nullable=False),
    Column("updated_at", TIME, nullable=False),
    PrimaryKeyConstraint("namespace", "name"),
    comment="Named instruction texts.",
)

prompt_versions = Table(
    "prompt_versions",
    metadata,
    Column("namespace", BYTEWISE, nullable=False),
    Column("name", BYTEWISE, nullable=False),
    Column("number", Integer, nullable=False, comment="From 1."),
    Column("text", Text, nullable=False),
    Column("based_on", Integer, comment="Number of the version that it improves."),
    Column("analysis", Text, comment="Why the text is as it is, if known."),
    Column("actor", Text, nullable=False, comment="The key, and the job if it was one."),
    Column("created_at", TIME, nullable=False),
    PrimaryKeyConstraint("namespace", "name", "number"),
    ForeignKeyConstraint(
        ["namespace", "name"], ["prompts.namespace", "prompts.name"], ondelete="CASCADE"
    ),
    comment="Every text of every prompt; never changed.",
)

prompt_labels = Table(
    "prompt_labels",
    metadata,
    Column("namespace", BYTEWISE, nullable=False),
    Column("name", BYTEWISE, nullable=False),
    Column("label", BYTEWISE, nullable=False),
    Column("number", Integer, nullable=False, comment="The version it points to."),
    Column(
        "earlier",
        ARRAY(Integer),
        nullable=False,
        comment="Versions it pointed to before, the last one last; a rollback takes it.",
    ),
    Column("actor", Text, nullable=False, comment="The last to move it."),
    Column("moved_at", TIME, nullable=False),
    PrimaryKeyConstraint("namespace", "name", "label"),
    ForeignKeyConstraint(
        ["namespace", "name"], ["prompts.namespace", "prompts.name"], ondelete="CASCADE"
    ),
    comment="Names of versions, such as production.",
)
