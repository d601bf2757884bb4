"""The database: connections, deadlines, the visible root, parameters, and optimistic writes.

PostgreSQL enforces its own limits only while it runs. A server that is stopped, unreachable, or
frozen by its disk never answers, so every wait for it also ends on our side.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol, Self, TypeAlias, TypeVar, cast
from urllib.parse import parse_qs, urlsplit, urlunsplit

import asyncpg
from asyncpg import Record
from asyncpg.pool import PoolConnectionProxy
from pgvector import HalfVector

from app import namespaces
from app.background import is_cancelled
from app.embedded.disk import Disk
from app.errors import AppError, ConflictError, OperatorError

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

ALL_ROOTS = namespaces.ALL_ROOTS
"""The root of work for all tenants: upkeep, key checks, migrations."""

_ACQUIRE_SECONDS = 10.0
"""Longest wait for a free connection, or for a new one."""

_CLOSE_SECONDS = 3.0

Connection: TypeAlias = "PoolConnectionProxy[Record]"
"""A borrowed connection; statements are run on it, never kept."""

WRITE_ATTEMPTS = 20
"""Default number of attempts; of writers that overtake one another, each round lets one through."""

ResultT = TypeVar("ResultT")


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


class Database:
    """Hands out connections; the caller that opens a transaction here commits it.

    Every wait has a deadline. While PostgreSQL is known to be frozen, all
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
            if isinstance(error.__context__, asyncio.CancelledError) and is_cancelled():
                raise error.__context__ from None  # only the rollback failed
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


class OvertakenError(Exception):
    """Another writer changed what an attempt was based on; nothing was written."""


class TooManyConflictsError(ConflictError):
    """Other writers kept changing the item."""

    code = "too_many_conflicts"
    title = "Too many conflicts"

    def __init__(self) -> None:
        super().__init__("Other requests kept changing the same items. Nothing was changed; retry.")
        self.headers["Retry-After"] = "1"


async def retry_optimistically(
    attempt: Callable[[], Awaitable[ResultT]],
    *,
    attempts: int = WRITE_ATTEMPTS,
    on: tuple[type[Exception], ...] = (OvertakenError,),
) -> ResultT:
    """Return the result of the first attempt that does not raise one of `on`.

    Each attempt reads again what it is based on. Raises TooManyConflictsError after the last one.
    """
    for _ in range(attempts):
        with suppress(*on):
            return await attempt()
    raise TooManyConflictsError
