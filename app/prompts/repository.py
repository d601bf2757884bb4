"""All SQL on prompts, their versions, and their labels, and their tables."""

from dataclasses import dataclass
from datetime import datetime

import orjson
from asyncpg import Record
from sqlalchemy import Column, ForeignKeyConstraint, Integer, PrimaryKeyConstraint, Table, Text
from sqlalchemy.dialects.postgresql import ARRAY

from app.db.database import Connection
from app.db.pages import Page, fetch_page
from app.db.tables import BYTEWISE, TIME, metadata
from app.namespaces import Root
from app.prompts.types import (
    Prompt,
    PromptLabelNotFoundError,
    PromptNotFoundError,
    PromptSummary,
    PromptVersion,
    PromptVersionNotFoundError,
)

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


MAX_EARLIER = 100
"""How many moves of a label can be rolled back."""

# Held until the end of the transaction; works even if there is no row yet to lock.
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('prompt ' || $1 || $2, 0))"

# A row without a version: the prompt exists, but not the requested version or label.
_FIND = """
SELECT prompts.name, revision, newest, update_instructions, when_to_update, updated_at,
    number AS version, text, based_on, analysis, actor, prompt_versions.created_at,
    ARRAY(
        SELECT label FROM prompt_labels
        WHERE namespace = $1 AND name = $2 AND number = prompt_versions.number ORDER BY label
    ) AS labels
FROM prompts LEFT JOIN prompt_versions
    ON prompt_versions.namespace = $1 AND prompt_versions.name = $2 AND number =
        CASE WHEN $3::text IS NULL THEN coalesce($4::int, newest)
        ELSE (SELECT number FROM prompt_labels WHERE namespace = $1 AND name = $2 AND label = $3)
        END
WHERE prompts.namespace = $1 AND prompts.name = $2
"""

_LABELS = """
SELECT coalesce(json_object_agg(label, number ORDER BY label), '{}')
FROM prompt_labels WHERE namespace = $1 AND name = $2
"""

_FIND_PAGE = """
SELECT name, revision, newest, update_instructions, when_to_update, created_at, updated_at,
    coalesce(octet_length(update_instructions), 0) + coalesce(octet_length(when_to_update), 0)
        AS bytes, (
        SELECT coalesce(json_object_agg(label, number ORDER BY label), '{}')
        FROM prompt_labels WHERE namespace = $1 AND name = prompts.name
    ) AS labels
FROM prompts WHERE namespace = $1 AND name > $2 ORDER BY name LIMIT $3
"""

_FIND_VERSIONS = """
SELECT number AS version, char_length(text) AS characters, based_on, analysis, actor, created_at,
    coalesce(octet_length(analysis), 0) AS bytes,
    ARRAY(
        SELECT label FROM prompt_labels
        WHERE namespace = $1 AND name = $2 AND number = prompt_versions.number ORDER BY label
    ) AS labels
FROM prompt_versions WHERE namespace = $1 AND name = $2 AND number < $3
ORDER BY number DESC LIMIT $4
"""

_WRITE = """
INSERT INTO prompts AS present (
    namespace, name, revision, newest, update_instructions, when_to_update, created_at, updated_at
) VALUES ($1, $2, 1, $3, $4, $5, $6, $6)
ON CONFLICT (namespace, name) DO UPDATE SET
    revision = present.revision + 1, newest = excluded.newest,
    update_instructions = excluded.update_instructions,
    when_to_update = excluded.when_to_update, updated_at = excluded.updated_at
"""

_TOUCH = """
UPDATE prompts SET revision = revision + 1, updated_at = $3, newest = coalesce($4, newest)
WHERE namespace = $1 AND name = $2
"""

_ADD_VERSION = """
INSERT INTO prompt_versions (namespace, name, number, text, based_on, analysis, actor, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
"""

_POINT = f"""
INSERT INTO prompt_labels AS present (namespace, name, label, number, earlier, actor, moved_at)
VALUES ($1, $2, $3, $4, '{{}}', $5, $6)
ON CONFLICT (namespace, name, label) DO UPDATE SET
    number = excluded.number, actor = excluded.actor, moved_at = excluded.moved_at,
    earlier = (present.earlier || present.number)[cardinality(present.earlier) + 2 - {MAX_EARLIER}:]
WHERE present.number <> excluded.number
"""

_POINT_BACK = """
UPDATE prompt_labels SET number = earlier[cardinality(earlier)],
    earlier = trim_array(earlier, 1), actor = $4, moved_at = $5
WHERE namespace = $1 AND name = $2 AND label = $3 AND earlier <> '{}'
"""

_DELETE_LABEL = "DELETE FROM prompt_labels WHERE namespace = $1 AND name = $2 AND label = $3"

_DELETE = "DELETE FROM prompts WHERE namespace = $1 AND name = $2"


@dataclass(frozen=True, slots=True)
class Ref:
    """The root that a prompt belongs to, and its name in it."""

    root: Root
    name: str


@dataclass(frozen=True, slots=True)
class Stamp:
    """The actor and the time of a change."""

    actor: str
    at: datetime


@dataclass(frozen=True, slots=True)
class NewVersion:
    """A version to add."""

    number: int
    text: str
    based_on: int | None = None
    analysis: str | None = None


async def lock(connection: Connection, ref: Ref) -> None:
    """Lock a prompt, which need not exist, until the end of the transaction."""
    await connection.execute(_LOCK, ref.root, ref.name)


async def find(connection: Connection, ref: Ref) -> Prompt | None:
    """Return a prompt with its newest version; None if there is no such prompt."""
    row = await connection.fetchrow(_FIND, ref.root, ref.name, None, None)
    return None if row is None else Prompt(**row)


async def get(
    connection: Connection, ref: Ref, *, label: str | None = None, version: int | None = None
) -> Prompt:
    """Return a prompt with the version of a label or number, or the newest.

    Raises PromptNotFoundError, PromptLabelNotFoundError, PromptVersionNotFoundError.
    """
    row = await connection.fetchrow(_FIND, ref.root, ref.name, label, version)
    if row is None:
        raise PromptNotFoundError(ref.name)
    if row["version"] is not None:
        return Prompt(**row)
    if label is not None:
        raise PromptLabelNotFoundError(ref.name, label, await find_labels(connection, ref))
    raise PromptVersionNotFoundError(ref.name, version or 0, row["newest"])


async def find_labels(connection: Connection, ref: Ref) -> dict[str, int]:
    """Return the version that each label of a prompt points to."""
    labels: dict[str, int] = orjson.loads(await connection.fetchval(_LABELS, ref.root, ref.name))
    return labels


async def find_page(
    connection: Connection, root: Root, *, after: str, limit: int
) -> Page[PromptSummary]:
    """Return a page of prompts by name; `after` is the last name of the page before."""
    page = await fetch_page(connection, _FIND_PAGE, root, after, limit + 1, limit=limit)
    return page.map(_to_summary)


async def find_versions(
    connection: Connection, ref: Ref, *, before: int, limit: int
) -> Page[PromptVersion]:
    """Return a page of the versions with numbers below `before`, newest first."""
    page = await fetch_page(
        connection, _FIND_VERSIONS, ref.root, ref.name, before, limit + 1, limit=limit
    )
    return page.map(_to_version)


async def upsert(
    connection: Connection,
    ref: Ref,
    newest: int,
    instructions: tuple[str | None, str | None],
    stamp: Stamp,
) -> None:
    """Create a prompt, or replace its update instructions."""
    await connection.execute(_WRITE, ref.root, ref.name, newest, *instructions, stamp.at)


async def increment_revision(
    connection: Connection, ref: Ref, stamp: Stamp, *, newest: int | None = None
) -> None:
    """Count a change, which may have added the version `newest`."""
    await connection.execute(_TOUCH, ref.root, ref.name, stamp.at, newest)


async def insert_version(
    connection: Connection, ref: Ref, version: NewVersion, stamp: Stamp
) -> None:
    """Add a version to an existing prompt."""
    await connection.execute(
        _ADD_VERSION,
        ref.root,
        ref.name,
        version.number,
        version.text,
        version.based_on,
        version.analysis,
        stamp.actor,
        stamp.at,
    )


async def point_label(
    connection: Connection, ref: Ref, label: str, number: int, stamp: Stamp
) -> bool:
    """Point a label to a version; False if it points there already."""
    status = await connection.execute(
        _POINT, ref.root, ref.name, label, number, stamp.actor, stamp.at
    )
    return bool(status == "INSERT 0 1")


async def roll_back_label(connection: Connection, ref: Ref, label: str, stamp: Stamp) -> bool:
    """Point a label to the version before its last move; False if it never moved."""
    status = await connection.execute(_POINT_BACK, ref.root, ref.name, label, stamp.actor, stamp.at)
    return bool(status == "UPDATE 1")


async def delete_label(connection: Connection, ref: Ref, label: str) -> bool:
    """Remove a label; False if there is none."""
    status = await connection.execute(_DELETE_LABEL, ref.root, ref.name, label)
    return bool(status == "DELETE 1")


async def delete(connection: Connection, ref: Ref) -> None:
    """Remove a prompt with its versions and labels, if it exists."""
    await connection.execute(_DELETE, ref.root, ref.name)


def _to_summary(row: Record) -> PromptSummary:
    return PromptSummary(
        name=row["name"],
        newest_version=row["newest"],
        update_instructions=row["update_instructions"],
        when_to_update=row["when_to_update"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        labels=orjson.loads(row["labels"]),
    )


def _to_version(row: Record) -> PromptVersion:
    return PromptVersion(
        version=row["version"],
        characters=row["characters"],
        based_on=row["based_on"],
        analysis=row["analysis"],
        actor=row["actor"],
        created_at=row["created_at"],
        labels=row["labels"],
    )
