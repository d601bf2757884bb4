"""From settings to a database that may be used, for every command that needs one."""

import asyncio
import ipaddress
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from app.auth.service import KeyService
from app.cli.announcement import announce_server
from app.config import Settings
from app.errors import OperatorError
from app.indexing.passages import check_path
from app.jobs.worker import new_worker_id
from app.resources import check_llm, open_resources
from app.supervisor import ChildProcess, Supervisor

STOP_SECONDS = 10.0
"""Time for a worker to hand back its jobs and end, after it has drained."""


class RefusedError(OperatorError):
    """The server will not start like this; the message says what to do."""


@contextmanager
def worker_beside(settings: Settings, running: Settings) -> Iterator[None]:
    """With the embedded database, keep a worker process running until the end of the block.

    A configured database has workers of its own. `running` is from `running_database(settings)`.
    """
    if settings.database_url:
        yield
        return
    worker = ChildProcess(
        "worker",
        # -P: a folder `app` in the current directory must not be imported.
        [sys.executable, "-P", "-m", "app.worker.process", new_worker_id()],
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

    If so, log what starts.
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
