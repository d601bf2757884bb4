import asyncio
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from app.cli.check_result import Finding
from app.cli.doctor import diagnose
from app.config import Settings
from app.providers.embedder import FakeEmbedder
from app.providers.errors import UnavailableError
from app.store.reindex import ReindexError
from tests.support.reindex import (
    NAMESPACE,
    NEW,
    OLD,
    Refusing,
    ask,
    assert_found,
    connected,
    fill,
    reindexed,
    serving_in_process,
    until,
)
from tests.support.server import MEMORYD, clean_environment, memoryd, serving

pytestmark = pytest.mark.slow

ITEMS = 1_000


@pytest.fixture
def settings(database_url: str) -> Settings:
    return Settings(database_url=database_url, database_pool_size=5, index_fields=["text"])


@pytest.fixture
def environment(settings: Settings) -> dict[str, str]:
    return {
        "MEMORYD_DATABASE_URL": str(settings.database_url),
        "MEMORYD_EMBEDDING": "fake:hashed",
        "MEMORYD_INDEX_FIELDS": "text",
    }


@pytest.fixture
async def filled(settings: Settings) -> None:
    async with serving_in_process(settings, FakeEmbedder(OLD)) as store:
        for start in range(0, ITEMS, 500):
            await fill(store, range(start, start + 500))


@asynccontextmanager
async def unfinished_run(
    passages: int, settings: Settings, environment: Mapping[str, str], cwd: Path
) -> AsyncIterator[Process]:
    """Yield a run that has written this many passages, and cannot finish: an item is locked."""
    last = "SELECT FROM items ORDER BY namespace DESC, key DESC LIMIT 1 FOR UPDATE"
    async with connected(settings) as connection, connection.transaction():
        await connection.execute(last)
        started = await asyncio.create_subprocess_exec(
            *(MEMORYD, "reindex"),
            env={**clean_environment(), **environment, "MEMORYD_EMBEDDING_DIMENSIONS": str(NEW)},
            cwd=cwd,
            stdout=PIPE,
            stderr=PIPE,
        )
        enough = f"SELECT count(*) >= {ITEMS + passages} FROM passages"
        await until(lambda: ask(settings, enough))
        yield started


async def stop(process: Process) -> bytes:
    """Ask a run to stop until it does, and return its errors.

    On a busy machine, a signal has led to no cancellation.
    """
    ended = asyncio.create_task(process.communicate())
    while not ended.done():
        process.terminate()
        await asyncio.wait([ended], timeout=5)
    return ended.result()[1]


async def test_a_run_that_was_stopped_or_killed_is_completed_by_the_next(
    settings: Settings, environment: dict[str, str], filled: None, tmp_path: Path
) -> None:
    async with unfinished_run(1, settings, environment, tmp_path) as started:
        errors = await stop(started)
        assert started.returncode == 130, errors
        assert b"Traceback" not in errors
    async with unfinished_run(600, settings, environment, tmp_path) as started:
        started.kill()
        await started.communicate()
    assert await ask(settings, "SELECT dimensions FROM passage_indexes WHERE active") == OLD
    done = memoryd(
        "reindex",
        environment={**environment, "MEMORYD_EMBEDDING_DIMENSIONS": str(NEW)},
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "Servers started from now on use fake:hashed (32 dimensions), " in done.stdout
    async with serving_in_process(settings, FakeEmbedder(NEW)) as store:
        await assert_found(store, settings, range(0, ITEMS, 500))


async def test_the_doctor_reports_that_a_reindex_is_due(settings: Settings) -> None:
    async with serving_in_process(settings, FakeEmbedder(OLD)) as store:
        await fill(store, range(3))
    failing = Refusing(NEW)
    failing.error = UnavailableError("away")
    with pytest.raises(ReindexError):
        await reindexed(settings, failing)
    german = settings.model_copy(update={"language": "german", "embedding": "fake:hashed"})
    due = {found.subject: found.detail for found in await faults(german)}
    assert due["terms"].startswith("stored as 2:detected, configured as 2:german: ")
    assert due["reindex"].startswith("stopped before all was indexed for fake:hashed (32 dim")
    told = await reindexed(german, FakeEmbedder(OLD), drop_others=True)
    assert told[-1] == "Dropped 5 passages made in other ways."
    assert await faults(german) == []


async def faults(settings: Settings) -> list[Finding]:
    findings = await asyncio.to_thread(diagnose, settings)
    return [found for found in findings if not found.good]


def test_the_embedded_database_is_reindexed_while_it_serves_and_while_it_does_not() -> None:
    # pytest keeps other users out of its directories, and PostgreSQL runs as one for root.
    with tempfile.TemporaryDirectory(prefix="memoryd-test-") as name:
        directory = Path(name)
        environment = {
            "MEMORYD_DATA_DIR": f"{name}/data",
            "MEMORYD_EMBEDDING": "fake:hashed",
            "MEMORYD_EMBEDDING_DIMENSIONS": str(OLD),
        }
        changed = {**environment, "MEMORYD_EMBEDDING_DIMENSIONS": str(NEW)}
        item = {"namespace": NAMESPACE, "key": "k", "value": {"text": "tea"}}
        with serving(directory / "log", environment=environment) as server:
            httpx2.put(f"{server.url}/v1/store/items", json=item).raise_for_status()
            done = memoryd("reindex", environment=changed, cwd=directory)
            assert done.returncode == 0, done.stderr
            httpx2.put(f"{server.url}/v1/store/items", json=item).raise_for_status()
        done = memoryd("reindex", environment=changed, cwd=directory)
        assert done.stdout == "Indexed 1 item.\n"
