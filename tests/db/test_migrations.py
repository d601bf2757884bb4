"""Migrations make, keep, and take back the schema; an unfit schema is refused."""

import asyncio
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy.exc import DBAPIError

from app.clock import FrozenClock
from app.config import Settings
from app.db import migrations
from app.db.migrations import SchemaMismatchError
from app.main import create_app
from app.providers.embedder import FakeEmbedder
from tests.support.app import Store, running
from tests.support.databases import Cluster

ROOT = Path(__file__).parents[2]
MIGRATIONS = sorted((ROOT / "alembic" / "versions").glob("*.py"))
UPGRADE = """
import sys
from app import models
from app.db import migrations
print("ready", flush=True)
sys.stdin.readline()
migrations.upgrade(sys.argv[1])
"""


@pytest.fixture
def migrated_url(cluster: Cluster) -> Iterator[str]:
    """A database of this test's own, whose schema it may change."""
    with cluster.database() as url:
        yield url


async def fetch(url: str, sql: str) -> list[Any]:
    connection = await asyncpg.connect(url)
    try:
        return [row[0] for row in await connection.fetch(sql)]
    finally:
        await connection.close()


def tables(url: str) -> set[str]:
    sql = "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'"
    return set(asyncio.run(fetch(url, sql)))


def fill(url: str) -> None:
    async def put_some() -> None:
        app = create_app(
            Settings(database_url=url),
            embedder=FakeEmbedder(),
            clock=FrozenClock(datetime(2026, 1, 1, tzinfo=UTC)),
        )
        async with running(app) as client:
            store = Store(client)
            await store.put(["users"], "food", {"text": "ramen"}, ttl=5)
            await store.put(["users"], "food", {"text": "soba"})
            await store.put(["users", "a"], "b", {"text": "c"})
            await store.delete(["users", "a"], "b")

    asyncio.run(put_some())


@contextmanager
def lock_held(url: str, *tables: str) -> Iterator[None]:
    """Hold an exclusive lock, as a long transaction would."""
    held, done = threading.Event(), threading.Event()

    async def hold() -> None:
        connection = await asyncpg.connect(url)
        async with connection.transaction():
            await connection.execute(f"LOCK TABLE {', '.join(tables)} IN ACCESS EXCLUSIVE MODE")
            held.set()
            await asyncio.to_thread(done.wait)
        await connection.close()

    holder = threading.Thread(target=asyncio.run, args=(hold(),))
    holder.start()
    try:
        assert held.wait(10)
        yield
    finally:
        done.set()
        holder.join()


def test_an_empty_database_is_brought_up_to_date(bare_url: str) -> None:
    migrations.upgrade(bare_url)
    assert {"items", "item_versions", "passages", "namespaces", "api_keys"} <= tables(bare_url)
    asyncio.run(migrations.require_current(bare_url))


def test_a_database_in_use_has_the_declared_tables_and_upgrades_in_place(
    migrated_url: str,
) -> None:
    before = tables(migrated_url)
    fill(migrated_url)
    migrations.upgrade(migrated_url)
    assert tables(migrated_url) == before
    migrations.check_models(migrated_url)


@pytest.mark.slow
def test_every_migration_can_be_taken_back_with_data_present(migrated_url: str) -> None:
    fill(migrated_url)
    migrations.downgrade(migrated_url, "base")
    assert tables(migrated_url) == {"alembic_version"}
    migrations.upgrade(migrated_url)
    migrations.check_models(migrated_url)
    fill(migrated_url)


@pytest.mark.parametrize("path", MIGRATIONS, ids=lambda path: path.stem)
def test_every_migration_gives_up_waiting_for_locks(path: Path) -> None:
    for direction in ("upgrade", "downgrade"):
        body = path.read_text().split(f"def {direction}() -> None:\n")[1]
        first = body.split("\n")[0]
        assert re.fullmatch(r"    op\.execute\(\"SET LOCAL lock_timeout = '\d{1,2}s'\"\)", first)


def test_new_migrations_are_made_with_a_lock_timeout() -> None:
    template = (ROOT / "alembic" / "script.py.mako").read_text()
    assert template.count("SET LOCAL lock_timeout") == 2


@pytest.mark.slow
def test_a_migration_that_cannot_get_its_lock_fails_and_changes_nothing(migrated_url: str) -> None:
    before = tables(migrated_url)
    started = time.monotonic()
    with (
        lock_held(migrated_url, *before - {"alembic_version"}),
        pytest.raises(DBAPIError, match="lock timeout"),
    ):
        migrations.downgrade(migrated_url, "base")
    assert time.monotonic() - started < 15
    assert tables(migrated_url) == before
    asyncio.run(migrations.require_current(migrated_url))


@pytest.mark.slow
def test_upgrades_at_the_same_time_wait_for_each_other(bare_url: str) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", UPGRADE, bare_url],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    migrations.check_models(bare_url)
    asyncio.run(migrations.require_current(bare_url))


class TestRequireCurrent:
    def refusal(self, url: str) -> str:
        with pytest.raises(SchemaMismatchError) as refused:
            asyncio.run(migrations.require_current(url))
        return str(refused.value)

    def set_revision(self, url: str, revision: str) -> None:
        asyncio.run(
            fetch(url, f"UPDATE alembic_version SET version_num = '{revision}' RETURNING 1")
        )

    def test_no_schema(self, bare_url: str) -> None:
        assert "no memoryd schema yet. Run `memoryd migrate`" in self.refusal(bare_url)

    def test_a_schema_of_a_newer_program(self, migrated_url: str) -> None:
        self.set_revision(migrated_url, "ffffffffffff")
        message = self.refusal(migrated_url)
        assert "ffffffffffff, which is newer than this program" in message
        assert migrations.newest_revision() in message

    @pytest.mark.skipif(len(MIGRATIONS) < 2, reason="there is no earlier revision yet")
    def test_a_stale_schema(self, migrated_url: str) -> None:
        migrations.downgrade(migrated_url, "-1")
        message = self.refusal(migrated_url)
        assert f"this program needs {migrations.newest_revision()}" in message
        assert "Run `memoryd migrate`" in message
