"""`memoryd serve` and `memoryd worker`: run the API server, and run jobs."""

import asyncio
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from math import ceil
from pathlib import Path
from typing import Annotated

import structlog
import typer
import uvicorn

from app.auth.service import KeyService
from app.cli.startup import (
    end_cleanly_on_signals,
    is_loopback,
    running_database,
    warn_of_unknown_variables,
)
from app.config import Settings, given_settings
from app.db.database import ALL_ROOTS, address_of
from app.errors import OperatorError
from app.http.connection_guard import raise_open_file_limit
from app.http.protocol import BoundedProtocol
from app.indexing.passages import check_path
from app.jobs import queue
from app.jobs.worker import new_worker_id
from app.logging import configure_logging
from app.resources import Resources, check_llm, open_resources
from app.supervisor import ChildProcess, Supervisor
from app.worker.process import run_worker_process

STOP_SECONDS = 10.0
"""Time for a worker to hand back its jobs and end, after it has drained."""

_logger = structlog.get_logger("memoryd")

serve_command = typer.Typer(add_completion=False)

worker_command = typer.Typer(add_completion=False)


@serve_command.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on. [127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on. [8080]")] = None,
    workers: Annotated[int | None, typer.Option(help="Server processes. [1]")] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Where the embedded database lives. [.memoryd]")
    ] = None,
) -> None:
    """Serve the API; without MEMORYD_DATABASE_URL, on a database of its own."""
    settings = given_settings(host=host, port=port, workers=workers, data_dir=data_dir)
    configure_logging(settings)
    end_cleanly_on_signals()
    warn_of_unknown_variables()
    raise_open_file_limit()
    check_address(settings)
    with running_database(settings) as running:
        check_before_serving(running, is_embedded=settings.database_url is None)
        _pass_on(running)
        with worker_beside(settings, running):
            _serve(running)


def _serve(settings: Settings) -> None:
    uvicorn.run(
        "app.main:create_app",
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        http=BoundedProtocol,
        ws="none",
        timeout_worker_healthcheck=30,  # a busy machine may need more than uvicorn's 5 s to start
        timeout_graceful_shutdown=ceil(settings.drain_seconds),  # streams may never end
    )


def _pass_on(settings: Settings) -> None:
    """Pass the decisions made here to the server processes, which read the environment."""
    os.environ["MEMORYD_DATABASE_URL"] = str(settings.database_url)
    os.environ["MEMORYD_DATA_DIR"] = str(settings.data_dir)


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


class RefusedError(OperatorError):
    """The server will not start like this; the message says what to do."""


def check_address(settings: Settings) -> None:
    """Raise RefusedError if the address is taken: the server would find out only at its end."""
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


async def announce_server(resources: Resources, *, is_embedded: bool) -> None:
    """Log the server's version, address, database, models, and workers."""
    settings = resources.settings
    if is_embedded:
        worker = "a process of this server"
    else:
        state, _ = await queue.read_overview(resources.database, settings.job_lease_seconds)
        worker = f"{state.workers} alive" if state.workers else "none; start `memoryd worker`"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    _logger.info(
        "memoryd starts",
        url=f"http://{host}:{settings.port}",
        worker=worker,
        **await _described(resources, is_embedded=is_embedded),
    )


async def _described(resources: Resources, *, is_embedded: bool) -> dict[str, str]:
    settings = resources.settings
    async with resources.database.connection(ALL_ROOTS) as connection:
        server = await connection.fetchval("SELECT current_setting('server_version')")
    place = (
        f"embedded in {settings.data_dir}"
        if is_embedded
        else f"at {address_of(str(settings.database_url))}"
    )
    return {
        "version": version("memoryd"),
        "database": f"PostgreSQL {server.split()[0]} {place}",
        "llm": settings.llm or "none",
        "embedding": settings.embedding,
    }


@worker_command.command()
def worker(
    concurrency: Annotated[int | None, typer.Option(help="Jobs done at once. [8]")] = None,
) -> None:
    """Run a worker: it does jobs and removes what has expired."""
    settings = given_settings(job_concurrency=concurrency)
    configure_logging(settings)
    warn_of_unknown_variables()
    check_llm(settings)
    end_cleanly_on_signals()
    with running_database(settings) as running:
        asyncio.run(run_worker_process(running))
