"""The database: one pool of connections, and the parameters of composed statements."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol, Self, TypeAlias, cast
from urllib.parse import urlsplit

import asyncpg
from asyncpg import Record
from asyncpg.pool import PoolConnectionProxy

from app import namespaces
from app.db.postgres import ConfinedConnection, open_pool
from app.embedded.disk import Disk
from app.errors import AppError

ALL_ROOTS = namespaces.ALL_ROOTS
"""The root of work for all tenants: upkeep, key checks, migrations."""

_ACQUIRE_SECONDS = 10.0
"""Longest wait for a free connection, or for a new one."""

_CLOSE_SECONDS = 3.0


class _FrozenError(Exception):
    """PostgreSQL has not answered for some time."""


# Errors of a PostgreSQL that is unreachable, starting, full, or too slow.
_UNAVAILABLE = (
    _FrozenError,
    OSError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a statement on a connection whose end is just being read
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InsufficientResourcesError,  # but see DiskFullError
    asyncpg.QueryCanceledError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,  # after a failover, the old primary
)


class DiskFullError(AppError):
    """The database's disk is full: reads are served, writes are refused."""

    status = 507
    code = "disk_full"
    title = "Disk full"

    def __init__(self) -> None:
        super().__init__(
            "The disk of the database is full. Nothing was stored; reads are served as long as "
            "PostgreSQL can. The operator has to free some space; then try again."
        )
        self.headers["Retry-After"] = "30"


class DatabaseUnavailableError(AppError):
    """PostgreSQL did not answer, or not in time."""

    status = 503
    code = "database_unavailable"
    title = "Database unavailable"

    def __init__(self, error: BaseException) -> None:
        super().__init__(
            f"PostgreSQL {_trouble(error)} ({type(error).__name__.strip('_')}). "
            "Nothing was reported as stored that is not; try again."
        )
        self.headers["Retry-After"] = "1"


def _trouble(error: BaseException) -> str:
    if isinstance(error, TimeoutError | _FrozenError):
        return "did not answer in time"
    if isinstance(error, OSError | asyncpg.CannotConnectNowError):
        return "cannot be reached"
    return "could not carry the request out"


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


class Database:
    """Hands out connections; the caller that opens a transaction here commits it.

    Every wait has a deadline (`app.db.postgres`). While PostgreSQL is known to be frozen, all
    uses fail at once: see `suspend`.
    """

    def __init__(self, pool: "asyncpg.Pool[Record]", disk: Disk) -> None:
        self.disk = disk
        self._pool = pool
        self._borrowed: set[Connection] = set()
        self._suspended = False

    @classmethod
    async def open(cls, url: str, *, pool_size: int, disk: Disk | None = None) -> Self:
        """Connect to `url` (a `postgresql://` address); `disk` is the database's, if known."""
        return cls(await open_pool(url, pool_size), disk or Disk())

    async def close(self) -> None:
        """Close every connection, gracefully if PostgreSQL answers."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._pool.close()  # terminates what is left when it is cancelled

    @property
    def connections_in_use(self) -> int:
        """How many connections are handed out at this moment."""
        return int(self._pool.get_size() - self._pool.get_idle_size())

    async def suspend(self) -> None:
        """Fail every running and new use of a frozen database until `resume`.

        All connections are replaced, because idle ones may be frozen as well.
        """
        self._suspended = True
        await self._pool.expire_connections()
        for connection in list(self._borrowed):
            connection.terminate()

    def resume(self) -> bool:
        """Allow uses of the database again; return whether they were suspended."""
        was_suspended, self._suspended = self._suspended, False
        return was_suspended

    @asynccontextmanager
    async def connection(self, root: str, *, unhurried: bool = False) -> AsyncIterator[Connection]:
        """Yield a connection confined to `root`; each statement commits by itself.

        An `unhurried` connection is for statements that may run for hours: it survives `suspend`,
        and each of its statements sets its own deadline.
        """
        try:
            connection = await self._acquire()
            if not unhurried:
                self._borrowed.add(connection)
            try:
                await cast(ConfinedConnection, connection).see(root)
                yield connection
            except (TimeoutError, asyncpg.ReadOnlySQLTransactionError) as error:
                if isinstance(error, TimeoutError):
                    connection.terminate()  # or its release would wait as long again
                await self._pool.expire_connections()  # idle ones may be just as dead
                raise
            finally:
                self._borrowed.discard(connection)
                await self._pool.release(connection)
        except asyncpg.DiskFullError as error:
            self.disk.report_full()
            raise DiskFullError from error
        except _UNAVAILABLE as error:
            if self.disk.refuses_writes and not isinstance(error, asyncpg.QueryCanceledError):
                raise DiskFullError from error  # the likely reason why PostgreSQL is away
            raise DatabaseUnavailableError(error) from error

    async def _acquire(self) -> Connection:
        if self._suspended:
            raise _FrozenError
        async with asyncio.timeout(_ACQUIRE_SECONDS):
            return await self._pool.acquire()

    @asynccontextmanager
    async def transaction(
        self, root: str, *, even_if_full: bool = False
    ) -> AsyncIterator[Connection]:
        """Yield a connection confined to `root`; commit at the end, roll back on an exception.

        Raises DiskFullError while there is too little space left for writing.
        """
        if self.disk.refuses_writes and not even_if_full:
            raise DiskFullError
        async with self.connection(root) as connection, connection.transaction():
            try:
                yield connection
            except TimeoutError:
                connection.terminate()  # or the rollback would wait as long again
                raise


def sqlalchemy_url(url: str) -> str:
    """Return the URL as SQLAlchemy wants it, with the asyncpg driver named."""
    parts = urlsplit(url)
    scheme = "postgresql+asyncpg"
    return f"{scheme}{url[len(parts.scheme) :]}"


class Parameters:
    """Collects bound parameters while SQL text is composed; values never enter the text."""

    def __init__(self) -> None:
        self.values: list[object] = []

    def add(self, value: object, cast: str) -> str:
        """Bind `value` and return its placeholder with the cast, such as `$3::jsonb`.

        A jsonb parameter is bound as JSON text.
        """
        self.values.append(value)
        return f"${len(self.values)}::{cast}"
