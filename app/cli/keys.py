"""`memoryd keys`: Create, list, and revoke API keys."""

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Annotated

import typer

from app.auth.access import ALL_GRANTED, ApiKey, Grant, Rates, Token, Verb, grants_text
from app.cli.startup import open_keys, running_database
from app.config import Settings
from app.db.database import address_of
from app.embedded import EmbeddedPostgres
from app.logging import configure_logging
from app.namespaces import InvalidNamespaceError, from_stored, parse_labels

keys = typer.Typer(
    help="Create, list, and revoke API keys.", no_args_is_help=True, add_completion=False
)

_LIFETIME_FORM = re.compile(r"(\d+)([mhd])")
_METRICS_HINT = "metrics cover all keys, so they take a key without a root or prefix"
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


@keys.command()
def create(
    name: Annotated[str, typer.Argument(help="Name of the key, such as its purpose.")],
    root: Annotated[
        str, typer.Option(help="Namespace the key is confined to, such as tenants.acme.")
    ] = "",
    grant: Annotated[
        list[str] | None,
        typer.Option(
            help="VERBS or VERBS:PREFIX below the root, such as read,write:users; repeatable. "
            f"Verbs: {', '.join(Verb)}. Without any: everything but metrics."
        ),
    ] = None,
    expires: Annotated[str | None, typer.Option(help="Lifetime, such as 90d or 12h.")] = None,
    requests_per_minute: Annotated[
        int | None,
        typer.Option(min=1, help="Requests in each server process; absent: the server's default."),
    ] = None,
    jobs_per_minute: Annotated[
        int | None, typer.Option(min=1, help="Jobs it may submit; absent: the server's default.")
    ] = None,
) -> None:
    """Create a key and print it; it is not shown again."""
    labels, lifetime = _labels(root, "--root"), _lifetime(expires)
    grants = tuple(map(_grant, grant)) if grant else ALL_GRANTED
    if labels and any(Verb.METRICS in one.verbs for one in grants):
        raise typer.BadParameter(f"--root {root!r}: {_METRICS_HINT}.")
    rates = Rates(requests_per_minute, jobs_per_minute)
    with _database() as settings:
        token = asyncio.run(_create(settings, name, labels, grants, lifetime, rates))
        typer.echo(f"For the database {_place(settings)}.", err=True)
    typer.echo(str(token))


@keys.command("list")
def list_keys() -> None:
    """List every key, without its secret."""
    with _database() as settings:
        found, now = asyncio.run(_list(settings))
        for key in found:
            typer.echo(_line(key, now))


@keys.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `memoryd keys list` shows it.")],
) -> None:
    """Revoke a key for good; servers notice within seconds."""
    bare_id = key_id.removeprefix("mk_").split("_")[0]
    with _database() as settings:
        found = asyncio.run(_revoke(settings, bare_id))
    if not found:
        raise typer.BadParameter(f"There is no key mk_{bare_id}; `memoryd keys list` lists them.")
    typer.echo(f"Revoked mk_{bare_id}.")


@contextmanager
def _database() -> Iterator[Settings]:
    configured = Settings()
    configure_logging(configured)
    with running_database(configured) as settings:
        yield settings


def _place(settings: Settings) -> str:
    """Return the database as an operator knows it: the embedded one by its directory."""
    url = str(settings.database_url)
    if EmbeddedPostgres.owns(url, settings.data_dir):
        return f"in {settings.data_dir.resolve()}"
    return f"at {address_of(url)}"


async def _create(
    settings: Settings,
    name: str,
    root: list[str],
    grants: tuple[Grant, ...],
    lifetime: timedelta | None,
    rates: Rates,
) -> Token:
    async with open_keys(settings) as service:
        try:
            expires_at = None if lifetime is None else service.now() + lifetime
        except OverflowError as error:
            raise _too_long(lifetime) from error
        return await service.create(
            name, root=root, grants=grants, expires_at=expires_at, rates=rates
        )


async def _list(settings: Settings) -> tuple[list[ApiKey], datetime]:
    async with open_keys(settings) as service:
        return await service.list(), service.now()


async def _revoke(settings: Settings, key_id: str) -> bool:
    async with open_keys(settings) as service:
        return await service.revoke(key_id)


def _labels(text: str, option: str) -> list[str]:
    try:
        return parse_labels(text)
    except InvalidNamespaceError as error:
        raise typer.BadParameter(f"{option} {text!r}: {error}.") from error


def _grant(text: str) -> Grant:
    verbs, _, prefix = text.partition(":")
    try:
        chosen = frozenset(Verb(verb.strip()) for verb in verbs.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"--grant {text!r}: use {', '.join(Verb)}.") from error
    if prefix and Verb.METRICS in chosen:
        raise typer.BadParameter(f"--grant {text!r}: {_METRICS_HINT}.")
    return Grant(tuple(_labels(prefix, "--grant")), chosen)


def _lifetime(text: str | None) -> timedelta | None:
    if text is None:
        return None
    found = _LIFETIME_FORM.fullmatch(text)
    if not found:
        raise typer.BadParameter(f"--expires {text!r}: write a number and m, h or d, such as 90d.")
    try:
        return timedelta(**{_UNITS[found[2]]: int(found[1])})
    except OverflowError as error:
        raise _too_long(text) from error


def _too_long(lifetime: str | timedelta | None) -> typer.BadParameter:
    return typer.BadParameter(f"--expires {lifetime}: leave it out if the key should not expire.")


def _line(key: ApiKey, now: datetime) -> str:
    state = "revoked" if key.revoked_at else "valid"
    if not key.revoked_at and key.expires_at:
        state = "expired" if key.expires_at <= now else f"until {key.expires_at:%Y-%m-%d %H:%M}Z"
    root = ".".join(from_stored(key.root)) or "*"
    limits = {"requests": key.rates.requests, "jobs": key.rates.jobs}
    rates = "".join(f"{what}={limit}/min  " for what, limit in limits.items() if limit)
    return f"mk_{key.id}  {state:<8}  root={root}  {grants_text(key.grants)}  {rates}{key.name}"
