"""`memoryd migrate`: update the database's schema."""

import asyncio

import typer

from app.cli.startup import running_database
from app.config import Settings
from app.db import migrations
from app.db.requirements import examine_role

command = typer.Typer(add_completion=False)


@command.command()
def migrate() -> None:
    """Bring the database's schema up to date."""
    with running_database(Settings()) as running:
        url = str(running.database_url)
        migrations.upgrade(url)
        problem = asyncio.run(examine_role(url)).problem
    typer.echo(f"The schema is at revision {migrations.newest_revision()}.")
    if problem:
        typer.echo(f"Before a server can start: {problem}", err=True)
