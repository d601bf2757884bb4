"""`memoryd doctor`: check the configuration, and report what is missing and how to fix it."""

import asyncio
import socket
import time
from collections.abc import Iterator
from typing import Annotated
from urllib.parse import urlsplit

import asyncpg
import typer

from app.cli.check_result import Finding
from app.cli.model_checks import ask_models, forget_restrictions, list_restrictions
from app.cli.startup import is_loopback, open_keys, running_database
from app.clock import LARGEST_OFFSET_SECONDS
from app.config import Settings, unknown_variables
from app.db import migrations
from app.db.database import ALL_ROOTS, CONNECT_SECONDS, Database, connect
from app.db.requirements import examine_role
from app.embedded import EmbeddedPostgres, EmbeddedPostgresError
from app.embedded.disk import Disk
from app.errors import AppError, SettingError
from app.indexing.formats import EmbeddingModelMismatchError, name_vocabulary
from app.indexing.terms import Vocabulary
from app.jobs import queue
from app.provider_settings import read_providers
from app.providers.errors import ProviderError
from app.resources import check_llm, open_resources
from app.store.backlog_repository import count_waiting
from app.store.reindex import half_filled, is_under_way

OLDEST_POSTGRESQL = 150_000
OLDEST_PGVECTOR = (0, 8)


command = typer.Typer(add_completion=False)


@command.command()
def doctor(
    *,
    ask: Annotated[
        bool, typer.Option("--ask", help="Send a small request to each model; it may cost money.")
    ] = False,
    forget: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Forget what MODEL, or all models, refused before."),
    ] = None,
) -> None:
    """Report what is configured, what is missing, and how to fix it."""
    findings = diagnose(Settings(), ask=ask, forget=forget)
    for finding in findings:
        typer.echo(str(finding))
    if not all(finding.good for finding in findings):
        raise typer.Exit(1)


def diagnose(settings: Settings, *, ask: bool = False, forget: str | None = None) -> list[Finding]:
    """Check everything a server needs; starts the embedded database if that is used."""
    findings: list[Finding] = []
    try:
        with running_database(settings) as running:
            asyncio.run(_check(running, findings, ask=ask, forget=forget))
    except EmbeddedPostgresError as error:
        findings.append(Finding(False, "database", str(error)))
    except migrations.SchemaMismatchError as error:
        findings.append(Finding(False, "schema", str(error)))
    if not (ask and settings.llm):
        findings.append(_llm(settings))
    findings.extend(Finding(False, "settings", problem) for problem in unknown_variables())
    return findings


async def _check(
    settings: Settings, findings: list[Finding], *, ask: bool, forget: str | None
) -> None:
    url = str(settings.database_url)
    try:
        findings.extend(await _database(url))
        findings.extend(_disk(settings))
        await migrations.require_current(url)
        findings.append(Finding(True, "schema", f"at revision {migrations.newest_revision()}"))
        findings.extend(await _role(url))
        findings.append(await _keys(settings))
        if forget is not None:
            findings.append(await forget_restrictions(url, forget))
        findings.extend(await _models(settings, ask=ask))
        findings.extend(await _indexes(settings))
        findings.extend(await _waiting_jobs(url))
        findings.extend(await list_restrictions(url))
    except migrations.SchemaMismatchError as error:
        findings.append(Finding(False, "schema", str(error)))
    except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        findings.append(
            Finding(False, "database", f"no connection ({error}); check MEMORYD_DATABASE_URL")
        )


async def _database(url: str) -> list[Finding]:
    connection = await connect(url, "memoryd doctor")
    try:
        row = await connection.fetchrow(
            "SELECT current_setting('server_version') AS version, "
            "current_setting('server_version_num')::int AS number, "
            "(SELECT extversion FROM pg_extension WHERE extname = 'vector') AS pgvector, "
            "extract(epoch FROM clock_timestamp())::float8 AS seconds"
        )
    finally:
        await connection.close()
    assert row is not None  # noqa: S101  # a SELECT without FROM has one row
    return list(_database_findings(row))


def _database_findings(row: asyncpg.Record) -> Iterator[Finding]:
    recent = row["number"] >= OLDEST_POSTGRESQL
    advice = "" if recent else "; memoryd needs 15 or newer"
    yield Finding(recent, "database", f"PostgreSQL {row['version']}{advice}")
    installed = tuple(int(part) for part in (row["pgvector"] or "0").split(".")[:2])
    yield (
        Finding(True, "pgvector", row["pgvector"])
        if installed >= OLDEST_PGVECTOR
        else Finding(
            False,
            "pgvector",
            f"{row['pgvector'] or 'missing'}; install 0.8 or newer and run "
            "`CREATE EXTENSION vector` (or ALTER EXTENSION vector UPDATE) in the database",
        )
    )
    yield _clock(time.time() - row["seconds"])


def _clock(ahead: float) -> Finding:
    if abs(ahead) <= LARGEST_OFFSET_SECONDS:
        return Finding(True, "clock", "agrees with the database's")
    return Finding(
        False,
        "clock",
        f"{abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} the database's, which is used "
        "instead; synchronize this machine's, such as with NTP",
    )


def _disk(settings: Settings) -> Iterator[Finding]:
    embedded = EmbeddedPostgres.owns(str(settings.database_url), settings.data_dir)
    if embedded and (state := Disk(settings.data_dir).state).is_full:
        left = (state.free_bytes or 0) >> 20
        yield Finding(
            False, "disk", f"full: {left} MiB left, so writes are refused; free some space"
        )


async def _role(url: str) -> list[Finding]:
    problem = (await examine_role(url)).problem
    return [Finding(False, "database role", " ".join(problem.split()))] if problem else []


async def _models(settings: Settings, *, ask: bool) -> list[Finding]:
    if not ask:
        return [await _embedding(settings)]
    try:
        return await ask_models(settings)
    except (SettingError, AppError) as error:
        return [Finding(False, "models", str(error))]


async def _embedding(settings: Settings) -> Finding:
    if settings.embedding == "none":
        return Finding(True, "embedding", "none: search compares words, not meaning")
    try:
        # The role has its own finding.
        chosen = settings.model_copy(update={"allow_superuser": True})
        async with open_resources(chosen) as resources:
            await resources.index.embed(["Does embedding work?"])
    except (EmbeddingModelMismatchError, SettingError, AppError, ProviderError) as error:
        return Finding(False, "embedding", str(error))
    return Finding(True, "embedding", f"{settings.embedding} answers")


async def _indexes(settings: Settings) -> list[Finding]:
    """Return the findings that a reindex would fix, and how many items are not embedded yet."""
    findings: list[Finding] = []
    database = await Database.open(str(settings.database_url), pool_size=1)
    try:
        async with database.connection(ALL_ROOTS) as connection:
            stored = await connection.fetchval(
                "SELECT vocabulary FROM passage_indexes WHERE active"
            )
            waiting = await count_waiting(connection)
        if waiting:
            detail = f"{waiting:,} items wait for it; a worker tries again"
            findings.append(Finding(True, "embedding", detail))
        if await is_under_way(database):
            return [*findings, Finding(True, "reindex", "under way")]
        return [*findings, *_terms(settings, stored), *_half_filled(await half_filled(database))]
    except AppError as error:
        return [Finding(False, "reindex", str(error))]
    finally:
        await database.close()


async def _waiting_jobs(url: str) -> list[Finding]:
    """Report the jobs that wait for the configuration to be corrected."""
    database = await Database.open(url, pool_size=1)
    try:
        async with database.connection(ALL_ROOTS) as connection:
            found = await queue.find_blocked(connection)
    finally:
        await database.close()
    if found is None:
        return []
    since = f"{found.since:%Y-%m-%d %H:%M} UTC"
    detail = f"{found.jobs} wait since {since} for the configuration: {found.detail}"
    return [Finding(False, "jobs", detail)]


def _terms(settings: Settings, stored: str | None) -> Iterator[Finding]:
    try:
        configured = name_vocabulary(Vocabulary(settings.language))
    except ValueError as error:
        yield Finding(False, "terms", f"MEMORYD_LANGUAGE: {error}")
        return
    if stored not in {None, configured}:
        yield Finding(
            False,
            "terms",
            f"stored as {stored}, configured as {configured}: words are found less well; "
            "run `memoryd reindex`",
        )


def _half_filled(names: list[str]) -> Iterator[Finding]:
    for name in names:
        yield Finding(
            False,
            "reindex",
            f"stopped before all was indexed for {name}; run `memoryd reindex` with that "
            "configuration, or `memoryd reindex --drop-others` with the present one",
        )


async def _keys(settings: Settings) -> Finding:
    async with open_keys(settings) as service:
        keys = await service.list()
    if keys:
        valid = sum(1 for key in keys if key.revoked_at is None)
        return Finding(True, "API keys", f"{valid} in force of {len(keys)}; requests need one")
    if is_loopback(settings.host):
        return Finding(True, "API keys", f"none; open to this machine only ({settings.host})")
    return Finding(
        False,
        "API keys",
        f"none, so the server will not listen on {settings.host}; run `memoryd keys create NAME`",
    )


def _llm(settings: Settings) -> Finding:
    if not settings.llm:
        return Finding(
            True,
            "LLM",
            "none; the store needs none. For jobs that do, set MEMORYD_LLM to "
            "anthropic:MODEL or openai:MODEL",
        )
    try:
        check_llm(settings)
    except SettingError as error:
        return Finding(False, "LLM", str(error))
    provider = read_providers(settings)[settings.llm.partition(":")[0]]
    if provider.base_url and (problem := _unreachable(provider.address)):
        fix = f"start the server, or correct {provider.address_setting}"
        return Finding(False, "LLM", f"{settings.llm}; {problem}; {fix}")
    return Finding(True, "LLM", settings.llm)


def _unreachable(base_url: str) -> str | None:
    """Return why an address cannot be reached; None if something listens there."""
    try:
        url = urlsplit(base_url)
        port = url.port or (443 if url.scheme == "https" else 80)
        socket.create_connection((url.hostname or "", port), timeout=CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        return f"nothing can be reached at {base_url} ({error})"
    return None
