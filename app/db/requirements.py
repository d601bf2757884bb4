"""Requirements of the database: the revision of its schema, and the rights of its role.

Revisions are read from the migrations' text, because importing Alembic takes half a second.
Row-level security must apply to the role, and the role must own the tables.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import asyncpg

from app.db.database import connect
from app.db.tables import TABLE_NAMES
from app.errors import OperatorError

_REVISION = re.compile(r'^revision: str = "(\w+)"$', re.MULTILINE)
_BEFORE = re.compile(r'^down_revision: .* = (?:None|"(\w+)")$', re.MULTILINE)

# memoryd's tables, which are in the schema of `alembic_version`, and their trigger functions.
_OURS = """
WITH ours AS (
    SELECT * FROM pg_class WHERE relkind = 'r' AND relname = ANY($1::name[]) AND relnamespace =
        (SELECT relnamespace FROM pg_class WHERE oid = to_regclass('alembic_version'))
), objects AS (
    SELECT 'TABLE ' || oid::regclass AS name, relowner AS owner FROM ours
    UNION
    SELECT 'FUNCTION ' || pg_proc.oid::regprocedure, proowner FROM ours
    JOIN pg_trigger ON tgrelid = ours.oid AND NOT tgisinternal JOIN pg_proc ON pg_proc.oid = tgfoid
)
"""

_EXAMINE = """
SELECT quote_ident(current_user) AS role, quote_ident(current_database()) AS database,
    rolsuper AS is_superuser, rolbypassrls AS bypasses,
    (SELECT array_agg(name ORDER BY name DESC) FROM objects) AS objects,
    (SELECT array_agg(name ORDER BY name DESC) FROM objects
     WHERE NOT pg_has_role(owner, 'USAGE')) AS foreign_objects,
    (SELECT array_agg(oid::regclass::text ORDER BY oid) FROM ours
     WHERE EXISTS (SELECT FROM pg_policy WHERE polrelid = ours.oid)
        AND NOT (relrowsecurity AND relforcerowsecurity)) AS unconfined_tables
FROM pg_roles WHERE rolname = current_user
"""


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


class DatabaseRoleError(OperatorError):
    """The role is not confined, or cannot do its work; the message has the SQL that fixes it."""


@dataclass(frozen=True, slots=True)
class DatabaseRole:
    """A role's properties and rights in its database."""

    role: str
    database: str
    is_superuser: bool
    bypasses: bool
    objects: list[str] | None
    foreign_objects: list[str] | None
    unconfined_tables: list[str] | None

    @property
    def problem(self) -> str | None:
        """The problem with the role and how to fix it; None if there is none."""
        if self.is_superuser or self.bypasses:
            return self._unconfined()
        if self.foreign_objects:
            return (
                f"The role {self.role} does not own memoryd's tables, as it must. As a superuser "
                f"(or their owner), run:\n{_give(self.foreign_objects, self.role)}"
            )
        if self.unconfined_tables:
            return "Row-level security is off for tables that need it. Run:\n" + "\n".join(
                f"  ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;"
                for table in self.unconfined_tables
            )
        return None

    def _unconfined(self) -> str:
        kind = "is a superuser" if self.is_superuser else "has BYPASSRLS"
        statements = [
            "  CREATE ROLE memoryd LOGIN PASSWORD 'choose one';",
            f"  ALTER DATABASE {self.database} OWNER TO memoryd;",
            _give(self.objects or [], "memoryd"),
        ]
        return (
            f"MEMORYD_DATABASE_URL connects as {self.role}, which {kind}: row-level security, "
            "which keeps the roots of API keys apart, does not apply to it. Make an ordinary role "
            "that owns the database and its tables:\n"
            + "\n".join(filter(None, statements))
            + "\nThen name it in MEMORYD_DATABASE_URL. "
            "(MEMORYD_ALLOW_SUPERUSER=true accepts the role as it is.)"
        )


async def examine_role(url: str) -> DatabaseRole:
    """Examine the role of a URL."""
    connection = await connect(url, "memoryd")
    try:
        row = await connection.fetchrow(_OURS + _EXAMINE, TABLE_NAMES)
    finally:
        await connection.close()
    assert row is not None  # noqa: S101  # everyone who connects has a role
    return DatabaseRole(**row)


async def require_ordinary_role(url: str) -> None:
    """Raise DatabaseRoleError unless row-level security applies and the tables are the role's."""
    if problem := (await examine_role(url)).problem:
        raise DatabaseRoleError(problem)


def _give(objects: list[str], role: str) -> str:
    return "\n".join(f"  ALTER {name} OWNER TO {role};" for name in objects)
