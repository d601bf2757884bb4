"""`memoryd mcp` as desktop clients start it."""

import asyncio
import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import httpx2
import pytest
import typer

from app.cli.mcp import mcp
from tests.mcp.test_extraction import EXTRACTED
from tests.support.llm_server import llm_server
from tests.support.mcp_client import Agent, connected, started
from tests.support.server import MEMORYD, clean_environment

INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}
EXTRACT = {
    "jsonrpc": "2.0",
    "id": 2,
    "method": "tools/call",
    "params": {"name": "extract_memories", "arguments": {"text": "Ann likes ramen."}},
}
PING = {"jsonrpc": "2.0", "id": 3, "method": "ping"}
SILENT_MODEL = {
    "MEMORYD_LLM": "openai:scripted",
    "OPENAI_API_KEY": "sk-test",
    "OPENAI_BASE_URL": "http://127.0.0.1:1",
}
"""An unreachable model: jobs that call it are retried, and waited for."""


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for an embedded database, which is made once."""
    return tmp_path_factory.mktemp("mcp") / "data"


@contextmanager
def initialized(data_dir: Path) -> Iterator[tuple[subprocess.Popen[str], IO[str], IO[str]]]:
    """Yield an embedded `memoryd mcp` that serves, its standard input and its output."""
    environment = {**clean_environment(), "MEMORYD_EMBEDDING": "fake:hashed", **SILENT_MODEL}
    with subprocess.Popen(
        [MEMORYD, "mcp", "--data-dir", data_dir],
        env=environment,
        cwd=data_dir.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        send(process.stdin, INITIALIZE)
        assert json.loads(process.stdout.readline())["result"]["serverInfo"]["name"] == "memoryd"
        assert len(postgres_of(data_dir)) > 0
        yield process, process.stdin, process.stdout
    assert postgres_of(data_dir) == []


def send(stdin: IO[str], message: object) -> None:
    stdin.write(json.dumps(message) + "\n")
    stdin.flush()


def log_of(process: subprocess.Popen[str]) -> str:
    """Wait for a process to end without an error, and return its log."""
    assert process.wait(20) == 0
    assert process.stderr is not None
    return process.stderr.read()


def postgres_of(data_dir: Path) -> list[str]:
    """Return the processes that run on an embedded database."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            command = (process / "cmdline").read_text()
        except (OSError, UnicodeDecodeError):
            continue
        if "postgres" in command and str(data_dir) in command:
            found.append(command.replace("\0", " "))
    return found


@pytest.mark.slow
async def test_an_embedded_database_ends_with_its_client(data_dir: Path, tmp_path: Path) -> None:
    async with llm_server() as llm:
        llm.respond = lambda _: EXTRACTED
        environment = {**SILENT_MODEL, "OPENAI_BASE_URL": llm.base_url_openai}
        given = ("--data-dir", str(data_dir), "--namespace", "users.ann")
        async with started(*given, environment=environment, cwd=tmp_path) as opened:
            agent = Agent(opened)
            await agent.remember("Ann likes udon.")
            assert await agent.texts(query="udon") == ["Ann likes udon."]
            extracted = await agent.call("extract_memories", text="Ann: I love ramen!")
            assert [change["action"] for change in extracted["changes"]] == ["insert"]
            assert len(postgres_of(data_dir)) > 0
    async with asyncio.timeout(20):  # on a busy machine, the client kills it before it is done
        while postgres_of(data_dir):  # noqa: ASYNC110  # other processes have no events
            await asyncio.sleep(0.1)
    assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.mark.slow
def test_a_signal_ends_it_cleanly_during_a_call(data_dir: Path) -> None:
    with initialized(data_dir) as (process, stdin, stdout):
        send(stdin, EXTRACT)
        send(stdin, PING)
        assert json.loads(stdout.readline())["id"] == PING["id"]
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)  # of a client in a hurry
        assert "Traceback" not in log_of(process)
        answer = json.loads(stdout.read())
    assert answer["id"] == EXTRACT["id"]
    assert answer["error"]["message"] == "Connection closed"


@pytest.mark.slow
def test_it_ends_cleanly_when_its_output_is_closed(data_dir: Path) -> None:
    with initialized(data_dir) as (process, stdin, stdout):
        stdout.close()
        send(stdin, PING)
        assert log_of(process) == ""


@pytest.mark.slow
async def test_a_configured_database_may_be_confined_to_a_namespace(
    client: httpx2.AsyncClient, database_url: str, tmp_path: Path
) -> None:
    environment = {"MEMORYD_DATABASE_URL": database_url}
    async with started("--namespace", "users.ann", environment=environment, cwd=tmp_path) as opened:
        await Agent(opened).remember("Ann likes ramen.")
    async with connected(client) as opened:
        found = await Agent(opened).search(namespace=["users", "ann"])
        assert [memory["namespace"] for memory in found] == [["users", "ann"]]
        assert await Agent(opened).search() == []


@pytest.mark.parametrize("namespace", ["", "[]"])
def test_an_empty_namespace_does_not_open_everything(namespace: str) -> None:
    with pytest.raises(typer.BadParameter, match="is empty; leave it out to see everything"):
        mcp(namespace=namespace)
