"""`memoryd migrate` and `memoryd reindex`: update the schema, and the index of all items."""

import asyncio
import signal
from typing import Annotated

import typer

from app.cli.startup import running_database
from app.config import Settings
from app.db import migrations
from app.db.requirements import examine_role
from app.indexing.formats import prepare
from app.indexing.passages import check_path
from app.logging import configure_logging
from app.resources import open_resources
from app.store.reindex import reindex

migrate_command = typer.Typer(add_completion=False)

reindex_command = typer.Typer(add_completion=False)


@migrate_command.command()
def migrate() -> None:
    """Bring the database's schema up to date."""
    with running_database(Settings()) as running:
        url = str(running.database_url)
        migrations.upgrade(url)
        problem = asyncio.run(examine_role(url)).problem
    typer.echo(f"The schema is at revision {migrations.newest_revision()}.")
    if problem:
        typer.echo(f"Before a server can start: {problem}", err=True)


@reindex_command.command()
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
    # As SIGINT, which asyncio turns into an orderly cancellation.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    for path in settings.index_fields:
        check_path(path, "MEMORYD_INDEX_FIELDS")
    with running_database(settings) as running:
        asyncio.run(_reindex(running, drop_others=drop_others))


async def _reindex(settings: Settings, *, drop_others: bool) -> None:
    # One connection for the long statements, and one for the short.
    chosen = settings.model_copy(update={"database_pool_size": 2})
    async with open_resources(chosen, choose_index=prepare) as resources:
        await reindex(resources, typer.echo, drop_others=drop_others)
