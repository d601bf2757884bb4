"""The `memoryd` command."""

import asyncio
import os
import signal
import sys
from math import ceil
from pathlib import Path
from typing import Annotated, Any

import asyncpg
import typer
import uvicorn
from pydantic import ValidationError

from app import migrations
from app.announcement import warn_of_unknown_variables
from app.config import Settings
from app.connection_guard import raise_open_file_limit
from app.connections import PgvectorMissingError
from app.database_role import DatabaseRoleError, examine_role
from app.doctor import diagnose
from app.embedded import EmbeddedPostgresError
from app.errors import AppError
from app.http_protocol import BoundedProtocol
from app.key_commands import keys
from app.logging import configure_logging
from app.mcp.proxy import ServerUnreachableError
from app.mcp_command import mcp
from app.passage_index import EmbeddingModelMismatchError, prepare
from app.providers.errors import ProviderError
from app.resources import NoDatabaseError, SettingError, check_llm, open_resources
from app.startup import (
    RefusedError,
    check_address,
    check_before_serving,
    end_cleanly_on_signals,
    running_database,
    worker_beside,
)
from app.store.paths import check_path
from app.store.reindexing import ReindexError, reindex
from app.worker_process import run_worker_process

cli = typer.Typer(
    help="Long-term memory for LLM agents, served over HTTP. "
    "Settings are environment variables; .env.example lists them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
cli.add_typer(keys, name="keys")
cli.command()(mcp)

_EXPLAINED = (
    DatabaseRoleError,
    PgvectorMissingError,
    RefusedError,
    NoDatabaseError,
    SettingError,
    EmbeddedPostgresError,
    EmbeddingModelMismatchError,
    migrations.DatabaseUnreachableError,
    migrations.MigrationFailedError,
    migrations.SchemaMismatchError,
    ProviderError,
    ReindexError,
    ServerUnreachableError,
    AppError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    ConnectionError,
)


@cli.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on. [127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on. [8080]")] = None,
    workers: Annotated[int | None, typer.Option(help="Server processes. [1]")] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Where the embedded database lives. [.memoryd]")
    ] = None,
) -> None:
    """Serve the API; without MEMORYD_DATABASE_URL, on a database of its own."""
    settings = _settings(host=host, port=port, workers=workers, data_dir=data_dir)
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
        timeout_graceful_shutdown=ceil(settings.drain_seconds),  # streams may go on for ever
    )


def _settings(**given: Any) -> Settings:
    """Return the environment's settings with those changed that the command line gives."""
    return Settings(**{name: value for name, value in given.items() if value is not None})


def _pass_on(settings: Settings) -> None:
    """Tell the server processes, which read the environment, what was decided here."""
    os.environ["MEMORYD_DATABASE_URL"] = str(settings.database_url)
    os.environ["MEMORYD_DATA_DIR"] = str(settings.data_dir)


@cli.command()
def worker(
    concurrency: Annotated[int | None, typer.Option(help="Jobs done at once. [8]")] = None,
) -> None:
    """Run a worker: it does jobs and removes what has expired."""
    settings = _settings(job_concurrency=concurrency)
    configure_logging(settings)
    warn_of_unknown_variables()
    check_llm(settings)
    end_cleanly_on_signals()
    with running_database(settings) as running:
        asyncio.run(run_worker_process(running))


@cli.command()
def migrate() -> None:
    """Bring the database's schema up to date."""
    with running_database(Settings()) as running:
        url = str(running.database_url)
        migrations.upgrade(url)
        problem = asyncio.run(examine_role(url)).problem
    typer.echo(f"The schema is at revision {migrations.newest_revision()}.")
    if problem:
        typer.echo(f"Before a server can start: {problem}", err=True)


@cli.command("reindex")
def reindex_items(
    drop_others: Annotated[
        bool,
        typer.Option(
            "--drop-others",
            help="Then remove what is indexed in other ways; no server may use it any more.",
        ),
    ] = False,
) -> None:
    """Index every item for the configured model and language, while servers go on."""
    settings = Settings()
    configure_logging(settings)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for path in settings.index_fields:
        check_path(path, "MEMORYD_INDEX_FIELDS")
    with running_database(settings) as running:
        asyncio.run(_reindex(running, drop_others=drop_others))


async def _reindex(settings: Settings, *, drop_others: bool) -> None:
    # One connection for the long statements, and one for the short.
    chosen = settings.model_copy(update={"database_pool_size": 2})
    async with open_resources(chosen, choose_index=prepare) as resources:
        await reindex(resources, typer.echo, drop_others=drop_others)


@cli.command()
def doctor() -> None:
    """Say what is configured, what is missing, and what mends it."""
    findings = diagnose(Settings())
    for finding in findings:
        typer.echo(str(finding))
    if not all(finding.good for finding in findings):
        raise typer.Exit(1)


def main() -> None:
    """Run the command; mistakes an operator can mend are one line, not a traceback."""
    try:
        cli()
    except ValidationError as error:
        _fail("\n".join(_setting_problem(found) for found in error.errors()))
    except _EXPLAINED as error:
        _fail(str(error) or type(error).__name__)


def _setting_problem(found: Any) -> str:
    name = str(found["loc"][0]).upper()
    variable = name if name.startswith(("OPENAI_", "ANTHROPIC_")) else f"MEMORYD_{name}"
    return f"{variable}: {found['msg']}; .env.example shows what it takes."


def _fail(message: str) -> None:
    typer.secho(message, err=True, fg=typer.colors.RED if sys.stderr.isatty() else None)
    sys.exit(1)


if __name__ == "__main__":
    main()
