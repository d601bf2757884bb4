"""Servers and workers start, share, and end as an operator expects."""

import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.auth.access import Token
from app.cli.startup import is_loopback
from tests.support.app import Store
from tests.support.data_directories import data_directory
from tests.support.server import Server, free_port, memoryd, serving, wait_until, working

FAKE = {"MEMORYD_EMBEDDING": "fake:hashed"}
EVERYWHERE = "0.0.0.0"  # noqa: S104
PLACE = {"namespace": ["users"], "key": "food"}


@pytest.fixture(scope="module")
def data_dir() -> Iterator[Path]:
    """The place of an embedded database that the tests share."""
    with data_directory() as path:
        yield path


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def external(database_url: str) -> dict[str, str]:
    """Settings of a server on an external database."""
    return {**FAKE, "MEMORYD_DATABASE_URL": database_url}


def call(server: Server, method: str, path: str = "/v1/store/items", **request: Any) -> Any:
    with httpx2.Client() as client:
        return client.request(method, server.url + path, **request)


def put(server: Server, **more: Any) -> None:
    response = call(server, "PUT", json={**PLACE, "value": {"text": "ramen"}, **more})
    assert response.status_code == 204, response.text


def get(server: Server) -> Any:
    return call(server, "GET", params={"namespace": "users", "key": "food"}).json()


def postgres_runs(data_dir: Path) -> bool:
    return (data_dir / "postgres" / "postmaster.pid").exists()


def create_key(environment: dict[str, str], cwd: Path, *options: str) -> Token:
    created = memoryd("keys", "create", "test", *options, environment=environment, cwd=cwd)
    token = Token.parse(created.stdout.strip())
    assert token is not None, created.stderr
    assert "For the database at " in created.stderr
    return token


def end(server: Server, number: int = signal.SIGTERM) -> int:
    server.process.send_signal(number)
    return server.process.wait(30)


def test_only_this_machine_is_loopback() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost")))
    others = (EVERYWHERE, "::", "", "10.0.0.1", "localhost.example.com", "127.0.0.1.example.com")
    assert not any(map(is_loopback, others))


@pytest.fixture
def terminal() -> Iterator[None]:
    """Start commands as a terminal does, even if these tests run under `nohup`."""
    previous = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, previous)


@pytest.mark.slow
def wait_for_starts(log: Path, workers: int) -> None:
    """Wait until all processes have started: Python itself reports an interrupt before that."""
    deadline = time.monotonic() + 60
    while log.read_text().count("Application startup complete") < workers:
        assert time.monotonic() < deadline
        time.sleep(0.05)


class TestEmbedded:
    def test_servers_on_one_directory_share_a_database_until_the_last_ends(
        self, data_dir: Path, tmp_path: Path
    ) -> None:
        options = ("--data-dir", str(data_dir))
        with serving(tmp_path / "first", *options, environment=FAKE) as first:
            put(first)
            with serving(tmp_path / "second", *options, environment=FAKE) as second:
                assert get(second)["value"] == {"text": "ramen"}
                assert end(first) == 0
                assert postgres_runs(data_dir)
                assert get(second)["value"] == {"text": "ramen"}
                assert end(second) == 0
        assert not postgres_runs(data_dir)

    @pytest.mark.parametrize(
        ("workers", "number"),
        [
            (1, signal.SIGINT),
            (1, signal.SIGHUP),  # several processes are started again by it
            (2, signal.SIGINT),
        ],
    )
    @pytest.mark.usefixtures("terminal")
    def test_signals_end_it_cleanly(
        self, data_dir: Path, log: Path, workers: int, number: int
    ) -> None:
        options = ("--data-dir", str(data_dir), "--workers", str(workers))
        with serving(log, *options, environment=FAKE) as server:
            assert call(server, "GET", "/readyz").status_code == 200
            wait_for_starts(log, workers)
            assert end(server, number) == 0
        assert not postgres_runs(data_dir)
        assert "Traceback" not in log.read_text()

    def test_a_killed_server_leaves_its_items_and_nothing_in_the_way(
        self, data_dir: Path, log: Path
    ) -> None:
        options = ("--data-dir", str(data_dir))
        with serving(log, *options, environment=FAKE) as server:
            put(server)
            server.kill()
        with serving(log, *options, environment=FAKE) as server:
            assert get(server)["value"] == {"text": "ramen"}
            assert end(server) == 0
        assert not postgres_runs(data_dir)

    def test_expired_items_are_removed_and_commands_use_the_database(
        self, data_dir: Path, log: Path, tmp_path: Path
    ) -> None:
        environment = {
            **FAKE,
            "MEMORYD_DATA_DIR": str(data_dir),
            "MEMORYD_SWEEP_INTERVAL_SECONDS": "0.1",
        }
        with serving(log, environment=environment) as server:
            put(server, ttl_seconds=0.2)
            done = memoryd("doctor", environment=environment, cwd=tmp_path)
            assert done.returncode == 0, done.stdout
            assert call(server, "GET", "/readyz").status_code == 200
            wait_until(lambda: last_action(server) == "expire")
        done = memoryd("keys", "list", environment=environment, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (0, "")
        assert not postgres_runs(data_dir)

    @pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
    def test_its_worker_is_another_process_that_never_outlives_it(
        self, data_dir: Path, log: Path
    ) -> None:
        with serving(log, "--data-dir", str(data_dir), environment=FAKE) as server:
            wait_until(lambda: lives_with_workers(server, 1))
            [worker] = workers_of(server)
            os.kill(worker, signal.SIGKILL)
            wait_until(lambda: workers_of(server) not in ([], [worker]))
            put(server)
            assert get(server)["value"] == {"text": "ramen"}
            [worker] = workers_of(server)
            server.process.kill()
            server.process.wait(30)
            wait_until(lambda: not Path(f"/proc/{worker}").exists())
        lines = [line for line in log.read_text().splitlines() if "task ended" in line]
        assert len(lines) == 1
        assert "signal 9" in lines[0]

    @pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
    def test_its_server_processes_never_outlive_it(self, data_dir: Path, log: Path) -> None:
        several = ("--data-dir", str(data_dir), "--workers", "2")
        with serving(log, *several, environment=FAKE) as server:
            server.process.kill()
            server.process.wait(30)
            wait_until(lambda: not answers(server))

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
    @pytest.mark.usefixtures("terminal")
    def test_signals_end_the_worker_cleanly(self, data_dir: Path, log: Path, number: int) -> None:
        data_dir = data_dir.with_name(f"signal-{number}")  # another test may have left one running
        with working(log, {**FAKE, "MEMORYD_DATA_DIR": str(data_dir)}) as worker:
            wait_until(lambda: postgres_runs(data_dir))
            time.sleep(1)
            worker.send_signal(number)
            assert worker.wait(30) == 0
        assert not postgres_runs(data_dir)
        assert log.read_text() == ""


def answers(server: Server) -> bool:
    try:
        return bool(call(server, "GET", "/healthz").status_code == 200)
    except httpx2.HTTPError:
        return False


def lives_with_workers(server: Server, number: int) -> bool:
    return bool(call(server, "GET", "/readyz").json()["queue"]["workers"] == number)


def workers_of(server: Server) -> list[int]:
    """Return the worker processes that a server has started."""
    children = Path(f"/proc/{server.process.pid}/task").glob("*/children")
    pids = [int(pid) for task in children for pid in task.read_text().split()]
    return [
        pid for pid in pids if b"app.worker.process" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def last_action(server: Server) -> str:
    params = {"namespace": "users", "key": "food"}
    found = call(server, "GET", "/v1/store/items/versions", params=params).json()["versions"]
    return str(found[0]["action"])


@pytest.mark.slow
class TestExternal:
    def test_a_worker_removes_what_expired(
        self, external: dict[str, str], log: Path, tmp_path: Path
    ) -> None:
        external["MEMORYD_SWEEP_INTERVAL_SECONDS"] = "0.1"
        with serving(log, environment=external) as server:
            put(server, ttl_seconds=0.2)
            time.sleep(0.5)
            assert last_action(server) == "put", "nothing works next to an external database"
            with working(tmp_path / "worker", external) as worker:
                wait_until(lambda: last_action(server) == "expire")
                worker.terminate()
                assert worker.wait(30) == 0

    def test_two_processes_serve_and_leave_the_port_free(
        self, external: dict[str, str], log: Path
    ) -> None:
        with serving(log, "--workers", "2", environment=external) as server:
            put(server)
            children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
            if sys.platform == "linux":
                assert len(children.read_text().split()) >= 2
            assert {get(server)["version"] for _ in range(20)} == {1}
        assert server.process.returncode == 0
        assert log.read_text().count("Application startup complete") == 2
        again = Server(["--port", str(server.port)], external, log)
        again.url = server.url
        again.wait_until_it_answers()
        assert end(again) == 0

    @pytest.mark.parametrize(
        ("other", "named"),
        [
            ({"MEMORYD_EMBEDDING": "none"}, "configured for none"),
            ({"MEMORYD_EMBEDDING_DIMENSIONS": "32"}, "configured for fake:hashed (32 dimensions)"),
        ],
    )
    async def test_another_embedding_model_is_refused(
        self,
        store: Store,
        external: dict[str, str],
        tmp_path: Path,
        other: dict[str, str],
        named: str,
    ) -> None:
        await store.put(["users"], "food", {"text": "ramen"})
        arguments = ("serve", "--port", str(free_port()))
        done = memoryd(*arguments, environment={**external, **other}, cwd=tmp_path)
        assert done.returncode == 1
        assert done.stderr.startswith("The database is indexed for fake:hashed (64 dimensions), ")
        assert named in done.stderr
        assert "set MEMORYD_EMBEDDING=fake:hashed" in done.stderr
        assert "Traceback" not in done.stderr

    @pytest.mark.parametrize("workers", ["1", "2"])
    def test_a_taken_port_is_named(
        self, server: Server, external: dict[str, str], tmp_path: Path, workers: str
    ) -> None:
        arguments = ("serve", "--port", str(server.port), "--workers", workers)
        done = memoryd(*arguments, environment=external, cwd=tmp_path)
        assert done.returncode == 1
        assert done.stderr.startswith(f"Cannot listen on 127.0.0.1:{server.port}: Address already")
        assert "--host and --port" in done.stderr
        assert call(server, "GET", "/readyz").status_code == 200

    def test_a_too_large_body_is_refused_over_the_network(self, server: Server) -> None:
        for content in (b"x" * 9_000_000, iter([b"x" * 1_000_000] * 9)):
            refused = call(server, "PUT", content=content)
            assert refused.status_code == 413
            assert refused.json()["code"] == "body_too_large"
            assert refused.headers["x-request-id"]
        put(server)
        assert "Traceback" not in server.log.read_text()


@pytest.mark.slow
class TestExposure:
    def test_without_a_key_it_refuses_to_listen_to_everyone(
        self, external: dict[str, str], tmp_path: Path
    ) -> None:
        arguments = ("serve", "--host", EVERYWHERE, "--port", str(free_port()))
        done = memoryd(*arguments, environment=external, cwd=tmp_path)
        assert done.returncode == 1
        assert done.stderr.startswith("Refusing to listen on 0.0.0.0 without an API key: ")
        assert "`memoryd keys create NAME`" in done.stderr

    def test_only_a_valid_key_opens_it_and_logs_hold_no_secret(
        self, external: dict[str, str], log: Path, tmp_path: Path
    ) -> None:
        token = create_key(external, tmp_path)
        expired = create_key(external, tmp_path, "--expires", "0m")
        chosen = {
            **external,
            "MEMORYD_LOG_LEVEL": "debug",
            "MEMORYD_LOG_FORMAT": "json",
            "OPENAI_API_KEY": "sk-hunter2",
        }
        with serving(log, "--host", EVERYWHERE, environment=chosen) as server:
            refused = call(server, "GET", params={"namespace": "users", "key": "food"})
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"] == "Bearer"
            assert call(server, "GET", "/healthz").status_code == 200
            for key in (str(token), f"mk_{token.id}_hunter3", "lsv2_pt_hunter4", str(expired)):
                body = {**PLACE, "value": {"text": "swordfish"}}
                headers = {"authorization": f"Bearer {key}", "x-request-id": "mine"}
                call(server, "PUT", json=body, headers=headers)
                last = call(
                    server, "GET", params={"namespace": "a", "key": "tuna"}, headers=headers
                )
            assert "expired" in last.json()["detail"]
        text = log.read_text()
        lines = [json.loads(line) for line in text.splitlines()]
        [started] = [line for line in lines if line["event"] == "memoryd starts"]
        assert started["version"] == version("memoryd")
        assert re.fullmatch(r"PostgreSQL \d+\.\d+ at .+/\w+", started["database"])
        assert (started["llm"], started["embedding"]) == ("none", "fake:hashed")
        assert started["worker"] == "none; start `memoryd worker`"
        requests = [
            (line["method"], line["status"])
            for line in lines
            if line.get("request_id") == "mine" and line["event"] == "request"
        ]
        assert requests == [("PUT", 204), ("GET", 200), *[("PUT", 401), ("GET", 401)] * 3]
        for secret in (token.secret, expired.secret, "hunter", "swordfish", "tuna"):
            assert secret not in text
