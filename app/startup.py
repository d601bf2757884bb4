"""From settings to a database that may be used, for every command that needs one."""

import asyncio
import ipaddress
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from app import migrations
from app.announcement import announce_server
from app.auth.service import KeyService
from app.clock import SystemClock
from app.config import Settings
from app.db import Database
from app.embedded import LONGEST_PAUSE_SECONDS, EmbeddedPostgres, PostgresKeeper
from app.errors import OperatorError
from app.jobs.worker import new_worker_id
from app.resources import DatabasePulse, check_llm, open_resources
from app.store.paths import check_path
from app.supervisor import ChildProcess, Supervisor

STOP_SECONDS = 10.0
"""How long a worker may take to hand back its jobs and to end once it has drained."""


class RefusedError(OperatorError):
    """The server will not start like this; the message says what to do."""


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
        migrations.upgrade(embedded.url)
        keeper = PostgresKeeper(embedded)
        try:
            with Supervisor(keeper, longest_pause=LONGEST_PAUSE_SECONDS):
                yield settings.model_copy(update={"database_url": embedded.url})
        finally:
            if keeper.failure:
                raise keeper.failure  # whatever the end of the process looked like


@contextmanager
def worker_beside(settings: Settings, running: Settings) -> Iterator[None]:
    """Keep a worker process running until the end of the block, beside the embedded database.

    A configured database has workers of its own. `running` is from `running_database(settings)`.
    """
    if settings.database_url:
        yield
        return
    worker = ChildProcess(
        "worker",
        # -P: a folder `app` in the current directory is not ours.
        [sys.executable, "-P", "-m", "app.worker_process", new_worker_id()],
        environment={
            "MEMORYD_DATABASE_URL": str(running.database_url),
            "MEMORYD_DATA_DIR": str(running.data_dir),
            "MEMORYD_DRAIN_SECONDS": str(running.drain_seconds),
        },
        stop_seconds=running.drain_seconds + STOP_SECONDS,
    )
    with Supervisor(worker):
        yield


def end_cleanly_on_signals() -> None:
    """Leave through every `with` block, or the embedded database would be left running."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as `nohup` leaves it
        # A closed terminal ends it as SIGTERM does, whoever handles that by now.
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))


def check_address(settings: Settings) -> None:
    """Raise RefusedError if nobody can listen there: the server would find out only at its end."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        socket.create_server((settings.host, settings.port), family=family).close()
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0]
        raise RefusedError(
            f"Cannot listen on {settings.host}:{settings.port}: {reason}. Choose another address "
            "with --host and --port, or stop the program that uses this one."
        ) from error


def check_before_serving(settings: Settings, *, is_embedded: bool) -> None:
    """Raise with a message that says what to do, unless a server may start with these settings.

    Otherwise say in the log what starts.
    """
    asyncio.run(_check_before_serving(settings, is_embedded=is_embedded))


async def _check_before_serving(settings: Settings, *, is_embedded: bool) -> None:
    check_llm(settings)
    for path in settings.index_fields:
        check_path(path, "MEMORYD_INDEX_FIELDS")
    async with open_resources(settings) as resources:
        service = KeyService(resources.database, resources.clock)
        if not is_loopback(settings.host) and not await service.any_exist():
            raise RefusedError(
                f"Refusing to listen on {settings.host} without an API key: everyone who can "
                "reach this machine could read and change every memory. Create a key first with "
                "`memoryd keys create NAME`, or listen on 127.0.0.1."
            )
        await announce_server(resources, is_embedded=is_embedded)


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@asynccontextmanager
async def open_keys(settings: Settings) -> AsyncIterator[KeyService]:
    """Yield the key service of a running database, checked to be up to date."""
    url = str(settings.database_url)
    await migrations.require_current(url)
    database = await Database.open(url, pool_size=1)
    clock = SystemClock()
    try:
        await DatabasePulse(database, clock).measure()
        yield KeyService(database, clock)
    finally:
        await database.close()
