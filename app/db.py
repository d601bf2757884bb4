"""The database: one pool of connections, and the table metadata that migrations are made from."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, Protocol, Self, TypeAlias, cast
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from asyncpg import Record
from asyncpg.pool import PoolConnectionProxy
from pgvector import HalfVector
from sqlalchemy import DateTime, MetaData, Text

from app.errors import AppError

metadata = MetaData(
    naming_convention={
        "ix": "%(table_name)s_%(column_0_N_name)s_index",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "pk": "%(table_name)s_pkey",
    }
)

BYTEWISE = Text(collation="C")
"""Text ordered by its bytes: what makes a namespace prefix a range."""

TIME = DateTime(timezone=True)

EVERYTHING = ""
"""The root of work that is not one tenant's: upkeep, key checks, migrations."""

STATEMENT_TIMEOUT_SECONDS = 30

IDLE_SECONDS = 30
"""A process that freezes in a transaction must not keep its locks: it could stop every claim."""


# What PostgreSQL says or does when it is away, starting, full or too slow.
_UNAVAILABLE = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a statement on a connection whose end is just being read
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InsufficientResourcesError,
    asyncpg.QueryCanceledError,
    asyncpg.IdleInTransactionSessionTimeoutError,
)


class DatabaseUnavailableError(AppError):
    """PostgreSQL did not answer, or not in time."""

    status = 503
    code = "database_unavailable"
    title = "Database unavailable"

    def __init__(self, error: BaseException) -> None:
        super().__init__(
            f"PostgreSQL could not carry the request out ({type(error).__name__}). "
            "Nothing was reported as stored that is not; try again."
        )
        self.headers["Retry-After"] = "1"


class Row(Protocol):
    """A row: columns by name."""

    def keys(self) -> Iterable[str]:
        """Return the names of the columns."""
        ...

    def __getitem__(self, column: str, /) -> Any:
        """Return a column's value."""
        ...


Connection: TypeAlias = "PoolConnectionProxy[Record]"
"""A borrowed connection; statements are run on it, never kept."""


class _ConfinedConnection(asyncpg.Connection):
    """A connection that remembers which root it may see (row-level security reads it)."""

    __slots__ = ("_visible_root",)

    async def see(self, root: str) -> None:
        """Confine what follows to namespaces at or below `root`."""
        if getattr(self, "_visible_root", None) != root:
            self._visible_root = None  # nobody knows it if this is interrupted
            await self.execute("SELECT set_config('memoryd.root', $1, false)", root)
            self._visible_root = root


class Database:
    """Hands out connections; whoever opens a transaction here commits it."""

    def __init__(self, pool: "asyncpg.Pool[Record]") -> None:
        self._pool = pool

    @classmethod
    async def open(cls, url: str, *, pool_size: int) -> Self:
        """Connect to `url` (a `postgresql://` address)."""
        pool = await asyncpg.create_pool(
            asyncpg_url(url),
            min_size=1,
            max_size=pool_size,
            init=_prepare,
            reset=_keep_session,
            connection_class=_ConfinedConnection,
            server_settings={
                "application_name": "memoryd",
                "statement_timeout": f"{STATEMENT_TIMEOUT_SECONDS}s",
                "idle_in_transaction_session_timeout": f"{IDLE_SECONDS}s",
                "jit": "off",
                "max_parallel_workers_per_gather": "0",  # many callers share the cores
            },
        )
        return cls(pool)

    async def close(self) -> None:
        """Close every connection."""
        await self._pool.close()

    @property
    def connections_in_use(self) -> int:
        """How many connections are handed out at this moment."""
        return int(self._pool.get_size() - self._pool.get_idle_size())

    @asynccontextmanager
    async def connection(self, root: str) -> AsyncIterator[Connection]:
        """Lend a connection confined to `root`; each statement commits by itself."""
        try:
            async with self._pool.acquire() as connection:
                await cast(_ConfinedConnection, connection).see(root)
                yield connection
        except _UNAVAILABLE as error:
            raise DatabaseUnavailableError(error) from error

    @asynccontextmanager
    async def transaction(self, root: str) -> AsyncIterator[Connection]:
        """Lend a connection confined to `root`; commit at the end, roll back on an exception."""
        async with self.connection(root) as connection, connection.transaction():
            yield connection


def asyncpg_url(url: str) -> str:
    """Return the URL without SQLAlchemy's `+driver`, which asyncpg does not know."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(scheme=parts.scheme.split("+")[0]))


def sqlalchemy_url(url: str) -> str:
    """Return the URL as SQLAlchemy wants it, with the asyncpg driver named."""
    parts = urlsplit(url)
    scheme = "postgresql+asyncpg"
    return f"{scheme}{url[len(parts.scheme) :]}"


async def _prepare(connection: Any) -> None:
    await connection.set_type_codec(
        "halfvec",
        schema="public",
        encoder=HalfVector.to_binary,
        decoder=HalfVector.from_binary,
        format="binary",
    )
    # Keeps walking the index until enough rows pass the filter; see docs/decisions.
    await connection.execute("SET hnsw.iterative_scan = relaxed_order; SET hnsw.ef_search = 100")


async def _keep_session(connection: Any) -> None:
    """Replace asyncpg's RESET ALL, a round trip that would also forget the settings above."""
