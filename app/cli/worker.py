"""`memoryd worker`: run jobs."""

import asyncio
from typing import Annotated

import typer

from app.cli.startup import end_cleanly_on_signals, running_database, warn_of_unknown_variables
from app.config import given_settings
from app.logging import configure_logging
from app.resources import check_llm
from app.worker.process import run_worker_process

command = typer.Typer(add_completion=False)


@command.command()
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
