"""`memoryd doctor`: checks of the configuration."""

import typer

from app.cli.checks import diagnose
from app.config import Settings

command = typer.Typer(add_completion=False)


@command.command()
def doctor() -> None:
    """Say what is configured, what is missing, and how to fix it."""
    findings = diagnose(Settings())
    for finding in findings:
        typer.echo(str(finding))
    if not all(finding.good for finding in findings):
        raise typer.Exit(1)
