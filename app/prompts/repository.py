"""All SQL on prompts, run on a connection somebody else opened."""

from dataclasses import dataclass
from datetime import datetime

import orjson
from asyncpg import Record

from app.db.database import Connection
from app.db.pages import fetch_page
from app.pagination import Page

MAX_EARLIER = 100
"""How many moves of a label can be rolled back."""

# Until the end of the transaction, also where there is no row yet that could be locked.
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('prompt ' || $1 || $2, 0))"

# A row without a version: there is the prompt, but not what was asked for.
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
    """Names a prompt: the root it belongs to, and its name there."""

    root: str
    name: str


@dataclass(frozen=True, slots=True)
class Change:
    """Who changes something, and when."""

    actor: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Version:
    """A version that is to be added."""

    number: int
    text: str
    based_on: int | None = None
    analysis: str | None = None


async def lock(connection: Connection, ref: Ref) -> None:
    """Wait until no other transaction changes this prompt, and keep others waiting."""
    await connection.execute(_LOCK, ref.root, ref.name)


async def find(
    connection: Connection, ref: Ref, *, label: str | None = None, version: int | None = None
) -> Record | None:
    """Return a prompt with the version asked for, or its newest; None: there is no such prompt.

    The row's `version` is None where the prompt does not have what was asked for.
    """
    return await connection.fetchrow(_FIND, ref.root, ref.name, label, version)


async def find_labels(connection: Connection, ref: Ref) -> dict[str, int]:
    """Return where a prompt's labels point."""
    text = await connection.fetchval(_LABELS, ref.root, ref.name)
    found: dict[str, int] = orjson.loads(text)
    return found


async def find_page(connection: Connection, root: str, *, after: str, limit: int) -> Page[Record]:
    """Return a page of prompts in the order of their names, from the first behind `after` on."""
    return await fetch_page(connection, _FIND_PAGE, root, after, limit + 1, limit=limit)


async def find_versions(
    connection: Connection, ref: Ref, *, before: int, limit: int
) -> Page[Record]:
    """Return versions without their texts, newest first, from the first below `before` on."""
    return await fetch_page(
        connection, _FIND_VERSIONS, ref.root, ref.name, before, limit + 1, limit=limit
    )


async def write(
    connection: Connection,
    ref: Ref,
    newest: int,
    instructions: tuple[str | None, str | None],
    change: Change,
) -> None:
    """Create a prompt, or replace how and when it is to be updated."""
    await connection.execute(_WRITE, ref.root, ref.name, newest, *instructions, change.at)


async def touch(
    connection: Connection, ref: Ref, change: Change, *, newest: int | None = None
) -> None:
    """Count a change, which may have added a version."""
    await connection.execute(_TOUCH, ref.root, ref.name, change.at, newest)


async def add_version(connection: Connection, ref: Ref, version: Version, change: Change) -> None:
    """Add a version to a prompt that is there."""
    await connection.execute(
        _ADD_VERSION,
        ref.root,
        ref.name,
        version.number,
        version.text,
        version.based_on,
        version.analysis,
        change.actor,
        change.at,
    )


async def point(connection: Connection, ref: Ref, label: str, number: int, change: Change) -> bool:
    """Let a label point to a version; False when it does already."""
    status = await connection.execute(
        _POINT, ref.root, ref.name, label, number, change.actor, change.at
    )
    return bool(status == "INSERT 0 1")


async def point_back(connection: Connection, ref: Ref, label: str, change: Change) -> bool:
    """Let a label point to where it pointed before; False when that is nowhere."""
    status = await connection.execute(
        _POINT_BACK, ref.root, ref.name, label, change.actor, change.at
    )
    return bool(status == "UPDATE 1")


async def delete_label(connection: Connection, ref: Ref, label: str) -> bool:
    """Remove a label; False when there is none."""
    status = await connection.execute(_DELETE_LABEL, ref.root, ref.name, label)
    return bool(status == "DELETE 1")


async def delete(connection: Connection, ref: Ref) -> None:
    """Remove a prompt with its versions and labels, if it exists."""
    await connection.execute(_DELETE, ref.root, ref.name)
