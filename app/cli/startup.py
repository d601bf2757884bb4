"""The database that a command works on, and other parts of a command's start.

It imports little, so that short commands start fast.
"""

import asyncio
import ipaddress
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib import import_module

import structlog

from app.auth.service import KeyService
from app.clock import SystemClock
from app.config import Settings, unknown_variables
from app.db.database import ALL_ROOTS, Database
from app.db.notifier import read_clock
from app.db.requirements import current_revision, newest_revision, require_current
from app.embedded import LONGEST_PAUSE_SECONDS, EmbeddedPostgres, PostgresKeeper
from app.supervisor import Supervisor

_logger = structlog.get_logger("memoryd")


@contextmanager
def running_database(settings: Settings) -> Iterator[Settings]:
    """Yield settings that name a running database: the configured one, or the embedded one.

    The embedded one is brought up to date, and started again if it ends; if that fails,
    EmbeddedPostgresError is raised at the end. A configured one is changed by `memoryd migrate`.
    """
    if settings.database_url:
        yield settings
        return
    with EmbeddedPostgres(settings.data_dir) as embedded:
        _bring_up_to_date(embedded.url)
        keeper = PostgresKeeper(embedded)
        try:
            with Supervisor(keeper, longest_pause=LONGEST_PAUSE_SECONDS):
                yield settings.model_copy(update={"database_url": embedded.url})
        finally:
            if keeper.failure:
                raise keeper.failure  # however the process ended


def _bring_up_to_date(url: str) -> None:
    """Migrate if needed; importing Alembic takes half a second."""
    if asyncio.run(current_revision(url)) != newest_revision():
        import_module("app.db.migrations").upgrade(url)


@asynccontextmanager
async def open_keys(settings: Settings) -> AsyncIterator[KeyService]:
    """Yield the key service of a running database, checked to be up to date."""
    url = str(settings.database_url)
    await require_current(url)
    database = await Database.open(url, pool_size=1)
    clock = SystemClock()
    try:
        async with database.connection(ALL_ROOTS) as connection:
            clock.correct(await read_clock(connection))
        yield KeyService(database, clock)
    finally:
        await database.close()


def end_cleanly_on_signals() -> None:
    """Leave through every `with` block, or the embedded database would be left running."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as `nohup` leaves it
        # A closed terminal ends it as SIGTERM does, whatever handles that at the time.
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))


def warn_of_unknown_variables() -> None:
    """Warn about variables named like settings that memoryd does not have."""
    for problem in unknown_variables():
        _logger.warning("unknown setting", problem=problem)


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
