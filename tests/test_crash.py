"""What was acknowledged survives when the server, PostgreSQL or both are killed under load."""

import asyncio
import itertools
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest
from typing_extensions import override

from app.db import migrations
from app.embedded import EmbeddedPostgres
from tests.support.data_directories import (
    children_of,
    data_directory,
    kill,
    kill_postgres,
    postmaster,
)
from tests.support.server import Server, serving, wait_until

pytestmark = pytest.mark.slow

WRITERS = 4
WARM_ATTEMPTS = 80
BATCH_ITEMS = 5
ENVIRONMENT = {"MEMORYD_EMBEDDING": "fake:hashed"}

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def template() -> Iterator[Path]:
    """A data directory whose database was made and migrated."""
    with data_directory() as path:
        with EmbeddedPostgres(path) as postgres:
            migrations.upgrade(postgres.url)
        yield path


@pytest.fixture
def data_dir(template: Path, data_dir: Path) -> Path:
    subprocess.run(["/bin/cp", "-a", str(template), str(data_dir)], check=True)
    return data_dir


def one_backend(data_dir: Path) -> int:
    """Return a PostgreSQL process that serves a connection of memoryd."""
    server = postmaster(data_dir)
    assert server is not None
    return next(
        pid
        for pid in children_of(server)
        if b"memoryd memoryd" in Path(f"/proc/{pid}/cmdline").read_bytes()
    )


@dataclass
class Attempt:
    """A write that was tried: values by key (None deletes), and what the server said."""

    values: dict[str, int | None]
    began: float
    status: int | None
    """None when the server was gone before it answered."""

    @property
    def acknowledged(self) -> bool:
        return self.status in {200, 204}


class Writer(threading.Thread):
    """A client that writes into its own namespace, one request after the other."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.namespace = ["crash", f"writer{next(_numbers)}"]
        self.attempts: list[Attempt] = []
        self.strange: list[str] = []
        self._url = url
        self._finish = threading.Event()

    def text(self, key: str, n: int) -> str:
        return f"{self.namespace[1]} {key} remembers{n}"

    @override
    def run(self) -> None:
        with httpx2.Client(base_url=self._url, timeout=30) as client:
            for n in itertools.count(1):
                if self._finish.is_set():
                    return
                values = self._next_values(n)
                began = time.monotonic()
                try:
                    response = self._send(client, values)
                except httpx2.TransportError:
                    self.attempts.append(Attempt(values, began, None))
                    return
                self.attempts.append(Attempt(values, began, response.status_code))
                if response.status_code not in {200, 204}:
                    self._look_at(response)

    def finish(self) -> None:
        self._finish.set()
        self.join(60)
        assert not self.is_alive()

    def _next_values(self, n: int) -> dict[str, int | None]:
        if n % 5 == 0:
            return {f"batch{n}-{place}": n for place in range(BATCH_ITEMS)}
        return {f"key{n % 7}": None if n % 11 == 0 else n}

    def _send(self, client: httpx2.Client, values: dict[str, int | None]) -> httpx2.Response:
        bodies = [self._body(key, n) for key, n in values.items()]
        if len(bodies) > 1:
            operations = [{"op": "put", **body} for body in bodies]
            return client.post("/v1/store/batch", json={"operations": operations})
        method = "PUT" if "value" in bodies[0] else "DELETE"
        return client.request(method, "/v1/store/items", json=bodies[0])

    def _body(self, key: str, n: int | None) -> dict[str, Any]:
        address = {"namespace": self.namespace, "key": key}
        if n is None:
            return address
        return {**address, "value": {"n": n, "text": self.text(key, n)}, "index": ["text"]}

    def _look_at(self, response: httpx2.Response) -> None:
        """Note whatever is not the answer for a database that is away."""
        is_problem = response.headers.get("content-type") == "application/problem+json"
        if not is_problem or response.json()["code"] != "database_unavailable":
            self.strange.append(f"{response.status_code} {response.text}")
        time.sleep(0.01)


def start_writers(url: str) -> list[Writer]:
    writers = [Writer(url) for _ in range(WRITERS)]
    for writer in writers:
        writer.start()
    write_on(writers)
    return writers


def write_on(writers: list[Writer]) -> None:
    """Wait until every writer has written some more."""
    goals = [len(writer.attempts) + WARM_ATTEMPTS for writer in writers]
    pairs = list(zip(writers, goals, strict=True))
    wait_until(lambda: all(len(writer.attempts) >= goal for writer, goal in pairs))


def finish(writers: list[Writer]) -> None:
    for writer in writers:
        writer.finish()
    assert [answer for writer in writers for answer in writer.strange] == []
    for writer in writers:
        assert sum(a.acknowledged for a in writer.attempts) >= WARM_ATTEMPTS


async def read_all(data_dir: Path) -> tuple[dict[tuple[str, str], int], list[str]]:
    """Return each item's number by writer and key, and what is inconsistent in the database."""
    with EmbeddedPostgres(data_dir) as postgres:
        connection = await asyncpg.connect(postgres.url)
        try:
            await connection.execute("SELECT set_config('memoryd.root', '', false)")
            rows = await connection.fetch(
                "SELECT split_part(namespace, E'\\x1f', 2) AS writer, key, (value->>'n')::int AS n "
                "FROM items"
            )
            faults = [
                f"{name}: {dict(row)}"
                for name, sql in FAULTS.items()
                for row in await connection.fetch(sql)
            ]
        finally:
            await connection.close()
    return {(row["writer"], row["key"]): row["n"] for row in rows}, faults


FAULTS = {
    "history has a gap": "SELECT namespace, key FROM item_versions GROUP BY namespace, key "
    "HAVING count(*) <> max(version) OR min(version) <> 1",
    "item is not its last version": "SELECT namespace, key, items.version, last.version AS last "
    "FROM items FULL JOIN (SELECT DISTINCT ON (namespace, key) * FROM item_versions "
    "ORDER BY namespace, key, version DESC) AS last USING (namespace, key) "
    "WHERE items.value IS DISTINCT FROM last.value "
    "OR (items.key IS NOT NULL AND items.version IS DISTINCT FROM last.version)",
    "passages are not the item's": "SELECT namespace, key FROM items "
    "FULL JOIN passages USING (namespace, key) WHERE text IS DISTINCT FROM value->>'text'",
    "namespace is unlisted": "SELECT namespace FROM items LEFT JOIN namespaces AS listed "
    "USING (namespace) WHERE listed.labels IS NULL",
}


def assert_nothing_is_lost(data_dir: Path, url: str, writers: list[Writer]) -> None:
    found, faults = asyncio.run(read_all(data_dir))
    assert faults == []
    for writer in writers:
        mine = {key: n for (name, key), n in found.items() if name == writer.namespace[1]}
        for key, possible in possible_values(writer).items():
            assert mine.get(key) in possible, (writer.namespace, key)
        for attempt in writer.attempts:
            if len(attempt.values) > 1:
                there = {key for key in attempt.values if key in mine}
                assert there in (set(), set(attempt.values)), "half of a batch"
        assert mine.keys() <= possible_values(writer).keys()
        search_for(writer, mine, url)


def possible_values(writer: Writer) -> dict[str, set[int | None]]:
    """Return what each key may hold: its last acknowledged value, or what was tried since."""
    possible: dict[str, set[int | None]] = {}
    for attempt in writer.attempts:
        for key, n in attempt.values.items():
            if attempt.acknowledged:
                possible[key] = {n}
            else:
                possible.setdefault(key, {None}).add(n)
    return possible


def search_for(writer: Writer, present: dict[str, int], url: str) -> None:
    """Find some of the items by their text, and list the namespace."""
    with httpx2.Client(base_url=url, timeout=30) as client:
        for key in [*present][:5] + [*present][-5:]:
            body = {
                "namespace_prefix": writer.namespace,
                "query": writer.text(key, present[key]),
                "limit": 1,
            }
            [best] = client.post("/v1/store/items/search", json=body).json()["items"]
            assert (best["key"], best["value"]["n"]) == (key, present[key])
            assert best["score"] > 0.7
        listed = client.post("/v1/store/namespaces", json={"prefix": writer.namespace}).json()
        assert listed["namespaces"] == [writer.namespace]


def running(data_dir: Path) -> Any:
    return serving(data_dir.parent / "log", "--data-dir", str(data_dir), environment=ENVIRONMENT)


def assert_unavailable_for_a_while(writers: list[Writer], since: float) -> None:
    """Check the answers to requests that began after PostgreSQL was gone."""
    late = [a for writer in writers for a in writer.attempts if a.began > since]
    assert len(late) >= WRITERS
    assert 503 in {attempt.status for attempt in late} <= {200, 204, 503}


def wait_until_ready(server: Server) -> None:
    with httpx2.Client(base_url=server.url, timeout=30) as client:
        wait_until(lambda: client.get("/readyz").status_code == 200)


def wait_until_unanswered(writers: list[Writer]) -> None:
    wait_until(lambda: not all(a.acknowledged for writer in writers for a in writer.attempts))


@pytest.mark.parametrize("with_database", [False, True])
def test_a_killed_server(data_dir: Path, with_database: bool) -> None:
    with running(data_dir) as server:
        writers = start_writers(server.url)
        if with_database:
            kill_postgres(data_dir)
        server.kill()
        finish(writers)
    with running(data_dir) as restarted:
        assert_nothing_is_lost(data_dir, restarted.url, writers)


def test_a_database_killed_again_and_again(data_dir: Path) -> None:
    everyone: list[Writer] = []
    with running(data_dir) as server:
        for _ in range(2):
            wait_until_ready(server)
            everyone += (writers := start_writers(server.url))
            kill_postgres(data_dir)
            gone = time.monotonic()
            write_on(writers)
            finish(writers)
            assert_unavailable_for_a_while(writers, gone)
        server.stop()
        assert server.process.returncode in {0, -signal.SIGTERM}
    with running(data_dir) as restarted:
        assert_nothing_is_lost(data_dir, restarted.url, everyone)


def test_a_killed_connection_is_replaced(data_dir: Path) -> None:
    with running(data_dir) as server:
        writers = start_writers(server.url)
        kill(one_backend(data_dir))
        wait_until_unanswered(writers)
        wait_until_ready(server)
        write_on(writers)
        finish(writers)
        assert all(writer.attempts[-1].acknowledged for writer in writers)
        assert_nothing_is_lost(data_dir, server.url, writers)
