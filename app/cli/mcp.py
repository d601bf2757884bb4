"""`memoryd mcp`: MCP on standard input and output."""

import asyncio
import signal
from pathlib import Path
from typing import Annotated

import typer

from app.auth.access import ALL_GRANTED, Access
from app.cli.serve import worker_beside
from app.cli.startup import end_cleanly_on_signals, running_database
from app.config import Settings
from app.logging import configure_logging
from app.mcp.server import create_server
from app.mcp.stdio import ENDING, address_of, forward, serve_on_stdio
from app.namespaces import ALL_ROOTS, InvalidNamespaceError, parse_labels
from app.resources import open_resources
from app.tools.tool import Caller
from app.usage_counter import record_usage

OPERATOR = Access(actor="stdio", root=ALL_ROOTS, grants=ALL_GRANTED)
"""A user who may start the command may read the database, too."""

command = typer.Typer(add_completion=False)


@command.command()
def mcp(
    url: Annotated[
        str | None, typer.Option(help="A running server to pass on to; none: use the database.")
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(envvar="MEMORYD_API_KEY", show_envvar=False, help="API key for the server."),
    ] = None,
    namespace: Annotated[
        str | None, typer.Option(help="Confine the client to this namespace, such as users.ann.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Where the embedded database lives. [.memoryd]")
    ] = None,
) -> None:
    """Serve one MCP client on standard input and output."""
    labels = _labels(namespace)
    settings = Settings() if data_dir is None else Settings(data_dir=data_dir)
    configure_logging(settings)
    end_cleanly_on_signals()
    if url is not None:
        asyncio.run(forward(address_of(url, labels), key))
        return
    # Clients kill what does not end within seconds, so jobs that run are handed back at once.
    settings = settings.model_copy(update={"drain_seconds": 0.0})
    with running_database(settings) as running, worker_beside(settings, running):
        try:
            asyncio.run(_serve(running, tuple(labels)))
        finally:
            # A client that is in a hurry must not cut off the end of the database.
            for number in ENDING:
                signal.signal(number, signal.SIG_IGN)


async def _serve(settings: Settings, namespace: tuple[str, ...]) -> None:
    async with (
        open_resources(settings) as resources,
        record_usage(resources.usage, resources.database),
    ):
        caller = Caller(access=OPERATOR, namespace=namespace)
        await serve_on_stdio(create_server(resources, lambda _: caller))


def _labels(namespace: str | None) -> list[str]:
    if namespace is None:
        return []
    try:
        labels = parse_labels(namespace)
    except InvalidNamespaceError as error:
        raise typer.BadParameter(f"{namespace!r} {error}.", param_hint="--namespace") from error
    if not labels:
        raise typer.BadParameter(
            "is empty; leave it out to see everything.", param_hint="--namespace"
        )
    return labels
