"""`memoryd serve`: run the API server."""

import os
from math import ceil
from pathlib import Path
from typing import Annotated

import typer
import uvicorn

from app.cli.announcement import warn_of_unknown_variables
from app.cli.databases import running_database
from app.cli.startup import (
    check_address,
    check_before_serving,
    end_cleanly_on_signals,
    worker_beside,
)
from app.config import Settings, given_settings
from app.http.connection_guard import raise_open_file_limit
from app.http.protocol import BoundedProtocol
from app.logging import configure_logging

command = typer.Typer(add_completion=False)


@command.command()
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
