"""The schema's state: bring it up to date, or refuse to serve on a stale one."""

import asyncio
from functools import cache
from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy.exc import DBAPIError

from app.connections import connect
from app.errors import OperatorError

_PROJECT = Path(__file__).resolve().parent.parent


class SchemaMismatchError(OperatorError):
    """The database's schema is not the one this program was written for."""


class NewerSchemaError(SchemaMismatchError):
    """The schema was made by a newer memoryd."""

    def __init__(self, found: str) -> None:
        super().__init__(
            f"The database's schema is at revision {found}, which is newer than this program "
            f"({newest_revision()}). Start a newer memoryd, or restore a backup made by this one."
        )


class DatabaseUnreachableError(OperatorError):
    """There is no database where the settings say; the message says what to check."""

    def __init__(self, error: Exception) -> None:
        super().__init__(
            f"Cannot connect to the database: {error}. Check MEMORYD_DATABASE_URL, which looks "
            "like postgresql://USER:PASSWORD@HOST:5432/DATABASE, and that PostgreSQL runs there."
        )


class MigrationFailedError(OperatorError):
    """A migration met something it cannot change."""

    def __init__(self, error: DBAPIError) -> None:
        cause = error.orig.__cause__ if error.orig and error.orig.__cause__ else error.orig
        super().__init__(
            f"The migration stopped, and what it had begun was taken back: {cause}. "
            "Mend the cause, then run `memoryd migrate` again."
        )


def upgrade(url: str, revision: str = "head") -> None:
    """Apply every migration up to `revision`; call outside an event loop.

    Raises DatabaseUnreachableError, SchemaMismatchError and MigrationFailedError.
    """
    found = asyncio.run(_current_revision(url))
    if found is not None and not _is_known(found):
        raise NewerSchemaError(found)
    try:
        command.upgrade(_config(url), revision)
    except DBAPIError as error:
        raise MigrationFailedError(error) from error


def downgrade(url: str, revision: str) -> None:
    """Take back migrations down to `revision`; call outside an event loop."""
    command.downgrade(_config(url), revision)


def check_models(url: str) -> None:
    """Raise unless the migrations produce exactly the declared tables."""
    command.check(_config(url))


@cache
def newest_revision() -> str:
    """Return the revision this program needs."""
    head = _directory().get_current_head()
    assert head is not None  # noqa: S101  # a checkout without migrations cannot run at all
    return head


async def require_current(url: str) -> None:
    """Raise SchemaMismatchError, naming the command that mends it, unless the schema is current.

    Raises DatabaseUnreachableError if there is no answer.
    """
    found = await _current_revision(url)
    needed = newest_revision()
    if found == needed:
        return
    if found is None:
        raise SchemaMismatchError(
            "The database has no memoryd schema yet. Run `memoryd migrate`, then start again."
        )
    if _is_known(found):
        raise SchemaMismatchError(
            f"The database's schema is at revision {found}, this program needs {needed}. "
            "Run `memoryd migrate`, then start again."
        )
    raise NewerSchemaError(found)


def _is_known(revision: str) -> bool:
    return any(script.revision == revision for script in _directory().walk_revisions())


async def _current_revision(url: str) -> str | None:
    try:
        connection = await connect(url, "memoryd")
    except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise DatabaseUnreachableError(error) from error
    try:
        if await connection.fetchval("SELECT to_regclass('alembic_version')") is None:
            return None
        found = await connection.fetchval("SELECT version_num FROM alembic_version")
        return str(found) if found is not None else None
    finally:
        await connection.close()


def _directory() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config(""))


def _config(url: str) -> Config:
    config = Config(_PROJECT / "alembic.ini")
    config.attributes["url"] = url
    return config
