"""The schema's state: bring it up to date, or refuse to serve on a stale one."""

from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from app.db import asyncpg_url

_PROJECT = Path(__file__).resolve().parent.parent


class SchemaMismatchError(Exception):
    """The database's schema is not the one this program was written for."""


def upgrade(url: str, revision: str = "head") -> None:
    """Apply every migration up to `revision`; call outside an event loop."""
    command.upgrade(_config(url), revision)


def downgrade(url: str, revision: str) -> None:
    """Take back migrations down to `revision`; call outside an event loop."""
    command.downgrade(_config(url), revision)


def check_models(url: str) -> None:
    """Raise unless the migrations produce exactly the declared tables."""
    command.check(_config(url))


def newest_revision() -> str:
    """Return the revision this program needs."""
    head = _directory().get_current_head()
    assert head is not None  # noqa: S101  # a checkout without migrations cannot run at all
    return head


async def require_current(url: str) -> None:
    """Raise SchemaMismatchError, naming the command that mends it, unless the schema is current."""
    found = await _current_revision(url)
    needed = newest_revision()
    if found == needed:
        return
    if found is None:
        raise SchemaMismatchError(
            "The database has no memoryd schema yet. Run `memoryd migrate`, then start again."
        )
    known = {script.revision for script in _directory().walk_revisions()}
    if found in known:
        raise SchemaMismatchError(
            f"The database's schema is at revision {found}, this program needs {needed}. "
            "Run `memoryd migrate`, then start again."
        )
    raise SchemaMismatchError(
        f"The database's schema is at revision {found}, which is newer than this program "
        f"({needed}). Start a newer memoryd, or restore a backup made by this one."
    )


async def _current_revision(url: str) -> str | None:
    connection = await asyncpg.connect(asyncpg_url(url))
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
