"""The database role of memoryd: row-level security must apply to it, and it must own the tables."""

from dataclasses import dataclass

from app.db.database import connect
from app.db.tables import TABLE_NAMES
from app.errors import OperatorError

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
