"""The `memoryd` command. Each subcommand's module is imported only to run it; most are slow."""

import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from typer._click import Command, Context
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command
from typing_extensions import override

from app.errors import AppError, OperatorError

_MODULES = {
    "serve": (
        "app.cli.serve:serve_command",
        "Serve the API; without MEMORYD_DATABASE_URL, on a database of its own.",
    ),
    "worker": (
        "app.cli.serve:worker_command",
        "Run a worker: it does jobs and removes what has expired.",
    ),
    "migrate": ("app.cli.database:migrate_command", "Bring the database's schema up to date."),
    "reindex": (
        "app.cli.database:reindex_command",
        "Index every item for the configured model and language, while servers go on.",
    ),
    "doctor": (
        "app.cli.doctor:command",
        "Report what is configured, what is missing, and how to fix it.",
    ),
    "mcp": ("app.cli.mcp:command", "Serve one MCP client on standard input and output."),
    "keys": ("app.cli.keys:keys", "Create, list, and revoke API keys."),
}
"""The module of each command, and its line in `memoryd --help`."""


class _Commands(Mapping[str, Command]):
    """The commands by name, each imported on access."""

    @override
    def __getitem__(self, name: str) -> Command:
        module, _, attribute = _MODULES[name][0].partition(":")
        found: Command = get_command(getattr(import_module(module), attribute))
        found.name = name
        return found

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(_MODULES)

    @override
    def __len__(self) -> int:
        return len(_MODULES)


class LazyGroup(TyperGroup):
    """Imports the command to run, and none to list them."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = _Commands()  # type: ignore[assignment]  # it is only read

    @override
    def list_commands(self, ctx: Context) -> list[str]:
        """Return the names in the order of the table."""
        return list(_MODULES)

    @override
    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:
        """Return a command's line for the list."""
        if cmd_name not in _MODULES:
            return None
        return TyperCommand(cmd_name, help=_MODULES[cmd_name][1])

    @override
    def resolve_command(
        self, ctx: Context, args: list[str]
    ) -> tuple[str | None, Command | None, list[str]]:
        """Return the command to run."""
        name, found, rest = super().resolve_command(ctx, args)
        return name, self.commands[name] if name in _MODULES else found, rest


cli = typer.Typer(
    cls=LazyGroup,
    help="Long-term memory for LLM agents, served over HTTP. "
    "Settings are environment variables; .env.example lists them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"memoryd {version('memoryd')}")
        raise typer.Exit


@cli.callback()
def _options(
    _: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command; mistakes an operator can correct are one line, not a traceback."""
    try:
        cli()
    except ValidationError as error:
        _fail("\n".join(_setting_problem(found) for found in error.errors()))
    except (OperatorError, AppError, ConnectionError) as error:
        _fail(str(error) or type(error).__name__)
    except Exception as error:
        if not type(error).__module__.startswith("asyncpg."):  # not imported for its classes alone
            raise
        _fail(str(error) or type(error).__name__)


def _setting_problem(found: Any) -> str:
    name = str(found["loc"][0]).upper()
    variable = name if name.startswith(("OPENAI_", "ANTHROPIC_")) else f"MEMORYD_{name}"
    problem = str(found["msg"]).removeprefix("Value error, ")
    return f"{variable}: {problem}; .env.example shows what it takes."


def _fail(message: str) -> None:
    typer.secho(message, err=True, fg=typer.colors.RED if sys.stderr.isatty() else None)
    sys.exit(1)


if __name__ == "__main__":
    main()
