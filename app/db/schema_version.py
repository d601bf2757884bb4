"""Revisions of the schema: the one a database has, and the one this program needs.

They are read from the migrations' text, because importing Alembic takes half a second.
"""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import asyncpg

from app.db.database import connect
from app.errors import OperatorError

_REVISION = re.compile(r'^revision: str = "(\w+)"$', re.MULTILINE)
_BEFORE = re.compile(r'^down_revision: .* = (?:None|"(\w+)")$', re.MULTILINE)


class SchemaMismatchError(OperatorError):
    """The database's schema is not the one this program was written for."""


class NewerSchemaError(SchemaMismatchError):
    """The schema was made by a newer memoryd."""

    def __init__(self, found: str) -> None:
        super().__init__(
            f"The database's schema is at revision {found}, which is newer than this program "
            f"({newest_revision()}). Start a newer memoryd, or restore a backup made by this one."
        )


class MissingRightsError(SchemaMismatchError):
    """The role may not read memoryd's tables."""

    def __init__(self, error: Exception) -> None:
        super().__init__(
            f"The database answers, but the role in MEMORYD_DATABASE_URL lacks rights: {error}. "
            "memoryd's role must own its tables: name the role that ran `memoryd migrate`, or as a "
            "superuser make it a member of that one with `GRANT OWNER TO ROLE`."
        )


class DatabaseUnreachableError(OperatorError):
    """There is no database where the settings say; the message says what to check."""

    def __init__(self, error: Exception) -> None:
        super().__init__(
            f"Cannot connect to the database: {error}. Check MEMORYD_DATABASE_URL, which looks "
            "like postgresql://USER:PASSWORD@HOST:5432/DATABASE, and that PostgreSQL runs there."
        )


def migrations_directory() -> Path:
    """Return the directory of the migrations: in a wheel below this one, in a checkout on top."""
    packaged = Path(__file__).parent / "alembic"
    return packaged if packaged.is_dir() else Path(__file__).resolve().parents[2] / "alembic"


@cache
def newest_revision() -> str:
    """Return the revision this program needs."""
    predecessors = _predecessors()
    [newest] = predecessors.keys() - predecessors.values()
    return newest


@cache
def _predecessors() -> Mapping[str, str | None]:
    """Return each revision's predecessor."""
    found: dict[str, str | None] = {}
    for path in (migrations_directory() / "versions").glob("*.py"):
        text = path.read_text()
        revision, before = _REVISION.search(text), _BEFORE.search(text)
        if revision is None or before is None:
            raise ValueError(f"{path} does not say which revision it is")
        found[revision[1]] = before[1]
    return found


async def require_current(url: str) -> None:
    """Raise SchemaMismatchError, naming the command that fixes it, unless the schema is current.

    Raises DatabaseUnreachableError if there is no answer.
    """
    found = await current_revision(url)
    needed = newest_revision()
    if found == needed:
        return
    if found is None:
        raise SchemaMismatchError(
            "The database has no memoryd schema yet. Run `memoryd migrate`, then start again."
        )
    if is_known(found):
        raise SchemaMismatchError(
            f"The database's schema is at revision {found}, this program needs {needed}. "
            "Run `memoryd migrate`, then start again."
        )
    raise NewerSchemaError(found)


def is_known(revision: str) -> bool:
    """Return whether this program has a revision."""
    return revision in _predecessors()


async def current_revision(url: str) -> str | None:
    """Return the revision of a database's schema, or None; raises DatabaseUnreachableError."""
    try:
        connection = await connect(url, "memoryd")
    except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise DatabaseUnreachableError(error) from error
    try:
        if await connection.fetchval("SELECT to_regclass('alembic_version')") is None:
            return None
        found = await connection.fetchval("SELECT version_num FROM alembic_version")
        return str(found) if found is not None else None
    except asyncpg.InsufficientPrivilegeError as error:
        raise MissingRightsError(error) from error
    finally:
        await connection.close()
