"""The target of attacks: a server with its worker, a key, and a model."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from benchmarks import server
from tests.support.server import Server, clean_environment

PROGRAM = str(Path(sys.executable).with_name("memoryd"))
PATIENCE_SECONDS = 90.0


@dataclass(frozen=True, slots=True)
class Target:
    """A running server, and a client with a key."""

    url: str
    pid: int
    client: httpx2.AsyncClient

    @property
    def address(self) -> tuple[str, int]:
        """Return host and port."""
        return "127.0.0.1", int(self.url.rpartition(":")[2])

    async def send(self, method: str, path: str, **request: Any) -> str:
        """Send one request; return a summary of the answer."""
        try:
            answer = await self.client.request(method, path, **request)
        except httpx2.HTTPError as error:
            return type(error).__name__
        return outcome(answer)


def outcome(answer: httpx2.Response) -> str:
    """Return a status, and the code of a problem or the state of a job."""
    try:
        body = answer.json()
    except ValueError:
        return str(answer.status_code)
    if not isinstance(body, dict):
        return str(answer.status_code)
    error = body.get("error")
    more = body.get("code") or body.get("state") or ""
    reason = error.get("code", "") if isinstance(error, dict) else ""
    return " ".join(filter(None, [str(answer.status_code), more, reason]))


@dataclass(frozen=True, slots=True)
class Attack:
    """An attack by one client; `model` is the model's behavior, if the attack uses one."""

    name: str
    run: Callable[[Target], Awaitable[str]]
    model: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def folder() -> Iterator[Path]:
    """Yield a folder with an embedded database and a key, for one server after another."""
    with tempfile.TemporaryDirectory(prefix="memoryd-bench-") as name:
        path = Path(name)
        made = subprocess.run(
            [PROGRAM, "keys", "create", "bench"],
            env=clean_environment() | {"MEMORYD_DATA_DIR": name, "MEMORYD_EMBEDDING": "none"},
            cwd=path,
            check=True,
            capture_output=True,
            text=True,
        )
        (path / "key").write_text(made.stdout.strip())
        yield path


@contextmanager
def target(path: Path, attack: Attack) -> Iterator[Target]:
    """Run a server in a folder, with a model if the attack uses one."""
    with _model(attack.model) as model:
        settings = {
            "MEMORYD_DATA_DIR": str(path),
            "MEMORYD_EMBEDDING": "fake:hashed",
            "MEMORYD_JOB_ATTEMPTS": "1",
            **model,
            **attack.settings,
        }
        running = Server([], settings, path / "log")
        try:
            running.wait_until_it_answers()
            key = (path / "key").read_text()
            client = httpx2.AsyncClient(
                base_url=running.url, headers={"x-api-key": key}, timeout=PATIENCE_SECONDS
            )
            yield Target(running.url, running.process.pid, client)
        finally:
            running.process.terminate()
            try:
                running.process.wait(30)
            except subprocess.TimeoutExpired:
                running.kill()


@contextmanager
def _model(reply: str | None) -> Iterator[dict[str, str]]:
    if reply is None:
        yield {}
        return
    port = server.free_port()
    command = [sys.executable, "-m", "benchmarks.stall.model", str(port), reply]
    with subprocess.Popen(command, env=os.environ) as process:
        try:
            yield {
                "MEMORYD_LLM": "openai:bench",
                "OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1",
                "OPENAI_API_KEY": "x",
            }
        finally:
            process.terminate()
