"""Connections to PostgreSQL: our own deadlines, the visible root, and pgvector's schema.

PostgreSQL enforces its own limits only while it runs. A server that is stopped, unreachable, or
frozen by its disk never answers, so every wait for it also ends on our side.
"""

import asyncio
from typing import Any
from urllib.parse import parse_qs, urlsplit, urlunsplit

import asyncpg
from pgvector import HalfVector

from app.errors import OperatorError

STATEMENT_TIMEOUT_SECONDS = 30

DEADLINE_SECONDS = STATEMENT_TIMEOUT_SECONDS + 2.0
"""Longest wait for an answer; PostgreSQL's own limit comes first unless it is frozen."""

UNHURRIED_SECONDS = 7 * 86_400.0
"""Deadline of statements that may take hours, such as building an index."""

CONNECT_SECONDS = 5.0

_CANCEL_SECONDS = 1.0
"""Longest wait for PostgreSQL to confirm that it stopped a statement."""

IDLE_SECONDS = 30
"""A process that freezes in a transaction must not keep its locks: it could stop every claim."""

# Finds pgvector's types, operators, and operator classes by their unqualified names in whatever
# schema the extension is; schemas earlier in the path still win.
FIND_PGVECTOR = """
SELECT nspname AS schema,
    set_config('search_path', current_setting('search_path') || ', ' || quote_ident(nspname), false)
FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace
WHERE extname = 'vector'
"""


class PgvectorMissingError(OperatorError):
    """The database lacks the extension that holds vectors."""

    def __init__(self) -> None:
        super().__init__(
            "The database has no pgvector. As a superuser, run `CREATE EXTENSION vector` in it; "
            "as on Supabase, `CREATE EXTENSION vector SCHEMA extensions` works too."
        )


class ConfinedConnection(asyncpg.Connection):
    """A connection that remembers which root it may see (row-level security reads it)."""

    __slots__ = ("_visible_root",)

    async def see(self, root: str) -> None:
        """Confine what follows to namespaces at or below `root`."""
        if getattr(self, "_visible_root", None) != root:
            self._visible_root = None  # unknown if this is interrupted
            await self.execute("SELECT set_config('memoryd.root', $1, false)", root)
            self._visible_root = root

    async def _cancel(self, *waiters: Any) -> None:
        """Ask PostgreSQL to stop a statement; without its confirmation, end the connection.

        asyncpg would wait for the confirmation as long as for a statement.
        """
        async with asyncio.timeout(_CANCEL_SECONDS) as patience:
            await super()._cancel(*waiters)  # type: ignore[misc]  # not in the stubs
        if patience.expired() and not self.is_closed():
            self.terminate()


async def open_pool(url: str, pool_size: int) -> "asyncpg.Pool[asyncpg.Record]":
    """Open a pool of connections that are set up for memoryd's statements."""
    return await asyncpg.create_pool(
        asyncpg_url(url),
        min_size=0,  # with more, asyncpg reconnects on its own and logs a traceback each time
        max_size=pool_size,
        init=_prepare,
        reset=_keep_session,
        connection_class=ConfinedConnection,
        timeout=CONNECT_SECONDS,
        command_timeout=DEADLINE_SECONDS,
        server_settings={
            "application_name": "memoryd",
            "statement_timeout": f"{STATEMENT_TIMEOUT_SECONDS}s",
            "idle_in_transaction_session_timeout": f"{IDLE_SECONDS}s",
            "jit": "off",
            "max_parallel_workers_per_gather": "0",  # many callers share the cores
        },
    )


async def connect(url: str, name: str) -> asyncpg.Connection:
    """Open one connection, named in `pg_stat_activity`."""
    return await asyncpg.connect(
        asyncpg_url(url),
        timeout=CONNECT_SECONDS,
        command_timeout=DEADLINE_SECONDS,
        connection_class=ConfinedConnection,
        server_settings={"application_name": name},
    )


def asyncpg_url(url: str) -> str:
    """Return the URL without SQLAlchemy's `+driver`, which asyncpg does not know."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(scheme=parts.scheme.split("+")[0]))


async def _prepare(connection: Any) -> None:
    found = await connection.fetchrow(FIND_PGVECTOR)
    if found is None:
        raise PgvectorMissingError
    await connection.set_type_codec(
        "halfvec",
        schema=found["schema"],
        encoder=HalfVector.to_binary,
        decoder=HalfVector.from_binary,
        format="binary",
    )
    # Keeps walking the index until enough rows pass the filter; see docs/decisions.
    await connection.execute("SET hnsw.iterative_scan = relaxed_order; SET hnsw.ef_search = 100")


async def _keep_session(connection: Any) -> None:
    """Replace asyncpg's RESET ALL, a round trip that would also forget the settings above."""


def address_of(url: str) -> str:
    """Return the address of a running database, without credentials."""
    parts = urlsplit(url)
    # A list of several hosts is not a valid URL.
    hosts = parts.netloc.rpartition("@")[2] or parse_qs(parts.query).get("host", ["localhost"])[0]
    return f"{hosts}{parts.path}"
