"""The embedded PostgreSQL is killed, or its disk fills up, while memoryd runs."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import httpx2
import pytest

from app.config import Settings
from app.embedded import EmbeddedPostgresError
from app.embedded.disk import RESERVE_NAME, Disk, keep_reserve
from app.embedded.server import MOST_FAILURES, PostgresKeeper
from app.main import create_app
from app.providers.embedder import FakeEmbedder
from app.supervisor import Supervisor
from tests.support.app import Store, running
from tests.support.data_directories import postmaster
from tests.support.databases import Cluster
from tests.support.disks import small_disk
from tests.support.server import Server, serving, working

FAKE = {"MEMORYD_EMBEDDING": "fake:hashed"}
ITEM = {"namespace": "users", "key": "food"}


class Caller:
    """Puts, gets and searches over HTTP; returns the status of each, or the problem's code."""

    def __init__(self, client: httpx2.Client) -> None:
        self._client = client

    @classmethod
    @contextmanager
    def of(cls, server: Server) -> Iterator[Self]:
        with httpx2.Client(base_url=server.url, timeout=30) as client:
            yield cls(client)

    def put(self) -> Any:
        body = {"namespace": ["users"], "key": "food", "value": {"text": "ramen"}, "ttl": 60}
        return self._answer(self._client.put("/v1/store/items", json=body))

    def get(self) -> Any:
        return self._answer(self._client.get("/v1/store/items", params=ITEM))

    def search(self) -> Any:
        body = {"namespace_prefix": ["users"], "query": "ramen"}
        return self._answer(self._client.post("/v1/store/items/search", json=body))

    def disk(self) -> Any:
        return self._client.get("/readyz").json()["disk"]

    def all(self) -> list[Any]:
        return [self.put(), self.get(), self.search()]

    def until(self, expected: list[Any], seconds: float = 45) -> None:
        deadline = time.monotonic() + seconds
        while (found := self.all()) != expected:
            assert time.monotonic() < deadline, found
            time.sleep(0.1)

    @staticmethod
    def _answer(response: httpx2.Response) -> Any:
        is_problem = response.status_code >= 400
        return response.json()["code"] if is_problem else response.status_code


def backends(data_dir: Path) -> list[int]:
    """Return the processes of clients' connections."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            named = (process / "cmdline").read_bytes()
            if b"postgres: memoryd" in named and (process / "cwd").readlink() == data_dir:
                found.append(int(process.name))
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_a_killed_postgresql_is_started_again_once(data_dir: Path, tmp_path: Path) -> None:
    log, worker_log = tmp_path / "log", tmp_path / "worker-log"
    shared = {**FAKE, "MEMORYD_DATA_DIR": str(data_dir)}
    with (
        serving(log, environment=shared) as server,
        working(worker_log, shared) as worker,
        Caller.of(server) as caller,
    ):
        assert caller.all() == [204, 200, 200]
        killed = postmaster(data_dir)
        assert killed is not None
        os.kill(backends(data_dir / "postgres")[0], signal.SIGSTOP)  # this one cannot end itself
        os.kill(killed, signal.SIGKILL)
        caller.until([204, 200, 200])
        started = postmaster(data_dir)
        assert started not in {None, killed}
        time.sleep(1.5)
        assert postmaster(data_dir) == started
        assert (server.process.poll(), worker.poll()) == (None, None)
    assert postmaster(data_dir) is None
    assert "postgresql" in log.read_text()


@pytest.mark.slow
def test_a_full_disk_is_named_and_survived(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with (
        small_disk(800) as disk,  # the reserve, a sixteenth, has room for PostgreSQL's log twice
        serving(log, "--data-dir", str(disk.directory / "data"), environment=FAKE) as server,
        Caller.of(server) as caller,
    ):
        caller.until([204, 200, 200])
        assert caller.disk()["full"] is False
        disk.fill()
        caller.until(["disk_full", 200, 200])
        assert caller.disk()["full"] is True
        assert "disk is full" in caller.disk()["warning"]
        killed = postmaster(disk.directory / "data")
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        caller.until(["disk_full", 200, 200])
        disk.free()
        caller.until([204, 200, 200])
        assert caller.disk()["full"] is False
    assert "the disk of the database is full" in log.read_text()


@pytest.mark.slow
async def test_a_full_disk_elsewhere_fails_writes_but_not_reads(
    cluster: Cluster, settings: Settings, embedder: FakeEmbedder
) -> None:
    url = str(settings.database_url)
    async with running(create_app(settings, embedder=embedder)) as client:
        store = Store(client)
        await store.put(["users"], "food", {"text": "ramen"}, ttl=60)
        with small_disk(2) as disk, tables_on(cluster, url, disk.directory):
            number, response = 0, None
            while response is None or response.status_code == 204:
                number += 1
                value = {"text": os.urandom(10_000).hex()}
                body = {"namespace": ["a"], "key": str(number), "value": value, "index": False}
                assert number < 1_000
                response = await client.put("/v1/store/items", json=body)
            assert (response.status_code, response.json()["code"]) == (507, "disk_full")
            assert response.headers["retry-after"] == "30"
            for _ in range(50):  # each would restart the item's lifetime
                assert (await store.get(["users"], "food"))["value"] == {"text": "ramen"}
                assert len(await store.search(["users"], query="ramen")) == 1
            ready = (await client.get("/readyz")).json()["disk"]
            assert (ready["full"], ready["free_bytes"]) == (True, None)
        await store.put(["users"], "food", {"text": "soba"})


@contextmanager
def tables_on(cluster: Cluster, url: str, directory: Path) -> Iterator[None]:
    """Keep the tables of items in a directory until the end of the block."""
    owner = Path(urlsplit(url).query.split("host=")[1].split("&")[0]).stat()
    os.chown(directory, owner.st_uid, owner.st_gid)
    tables = ("items", "item_versions", "passages", "terms")
    move = [f"ALTER TABLE {table} SET TABLESPACE small" for table in tables]
    back = [f"ALTER TABLE {table} SET TABLESPACE pg_default" for table in tables]
    make = f"CREATE TABLESPACE small LOCATION '{directory}'"
    execute_many(cluster, url, make, *move)
    try:
        yield
    finally:
        execute_many(cluster, url, *back, "DROP TABLESPACE small")


def execute_many(cluster: Cluster, url: str, *statements: str) -> None:
    """Run statements from inside a running event loop."""
    with ThreadPoolExecutor() as pool:
        pool.submit(cluster.execute, url, *statements).result()


class Unstartable:
    """A server that ends whenever it is started."""

    is_running = False

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.starts = 0

    def start_again(self, stopping: threading.Event) -> None:  # noqa: ARG002
        self.starts += 1
        raise EmbeddedPostgresError("it is broken")


def test_a_server_that_cannot_be_started_ends_the_process(tmp_path: Path) -> None:
    server, asked = Unstartable(tmp_path), threading.Event()
    keeper = PostgresKeeper(server, asked.set)
    with Supervisor(keeper, first_pause=0.001, longest_pause=0.001):
        assert asked.wait(10)
    assert server.starts >= MOST_FAILURES
    assert f"{MOST_FAILURES} times in a row" in str(keeper.failure)
    assert "it is broken" in str(keeper.failure)


def test_some_space_is_reserved_and_given_up(tmp_path: Path) -> None:
    with small_disk(64) as disk:
        reserve = disk.directory / RESERVE_NAME
        before = shutil.disk_usage(disk.directory).free
        keep_reserve(disk.directory)
        assert reserve.stat().st_size == 4 << 20
        assert not Disk(disk.directory).refuses_writes
        assert Disk(disk.directory).state.free_bytes == before, "the reserve counts as free"
        disk.fill()
        assert Disk(disk.directory).refuses_writes
        keep_reserve(disk.directory)
        assert not reserve.exists()
        assert shutil.disk_usage(disk.directory).free >= 4 << 20
        assert Disk(disk.directory).refuses_writes
        disk.free()
        keep_reserve(disk.directory)
        assert reserve.exists()
        assert not Disk(disk.directory).refuses_writes
