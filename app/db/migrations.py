"""Migrations: bring a database's schema up to date, or back."""

import asyncio

from alembic import command
from alembic.config import Config
from sqlalchemy.exc import DBAPIError

from app.db.requirements import (
    NewerSchemaError,
    SchemaMismatchError,
    current_revision,
    is_known,
    migrations_directory,
    newest_revision,
    require_current,
)
from app.errors import OperatorError

__all__ = [
    "MigrationFailedError",
    "SchemaMismatchError",
    "check_models",
    "downgrade",
    "newest_revision",
    "require_current",
    "upgrade",
]


class MigrationFailedError(OperatorError):
    """A migration met something it cannot change."""

    def __init__(self, error: DBAPIError) -> None:
        cause = error.orig.__cause__ if error.orig and error.orig.__cause__ else error.orig
        super().__init__(
            f"The migration stopped, and its changes were rolled back: {cause}. "
            "Fix the cause, then run `memoryd migrate` again."
        )


def upgrade(url: str, revision: str = "head") -> None:
    """Apply every migration up to `revision`; call outside an event loop.

    Raises DatabaseUnreachableError, SchemaMismatchError and MigrationFailedError.
    """
    found = asyncio.run(current_revision(url))
    if found is not None and not is_known(found):
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


def _config(url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(migrations_directory()).replace("%", "%%"))
    config.attributes["url"] = url
    return config
