"""`memoryd mcp` as desktop clients start it."""

import asyncio
import json
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from mcp import Client, StdioServerParameters, stdio_client

from app.auth.access import ALL_GRANTED, Grant, Verb
from app.auth.service import KeyService
from tests.auth.test_routes import key_with
from tests.mcp.test_extraction import LEARNED
from tests.support.command import memoryd
from tests.support.llm_server import llm_server
from tests.support.mcp_client import Agent
from tests.support.server import MEMORYD, Server, clean_environment, serving

pytestmark = pytest.mark.slow

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


@asynccontextmanager
async def started(
    *arguments: str, environment: Mapping[str, str], cwd: Path, mode: str = "auto"
) -> AsyncIterator[Client]:
    """Yield a client of a `memoryd mcp` of its own; its log is in `cwd`."""
    parameters = StdioServerParameters(
        command=str(MEMORYD),
        args=["mcp", *arguments],
        env={**clean_environment(), "MEMORYD_EMBEDDING": "fake:hashed", **environment},
        cwd=cwd,
    )
    with (cwd / "log").open("a") as log:
        async with Client(stdio_client(parameters, errlog=log), mode=mode) as opened:
            yield opened


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


async def test_the_embedded_database_serves_by_itself_and_ends_with_its_client(
    tmp_path: Path, mode: str
) -> None:
    data_dir = tmp_path / "data"
    given = ("--data-dir", str(data_dir))
    async with started(*given, environment={}, cwd=tmp_path, mode=mode) as opened:
        agent = Agent(opened)
        memory = await agent.remember("Ann likes ramen.")
        assert await agent.texts(query="ramen") == ["Ann likes ramen."]
        assert "set MEMORYD_LLM" in await agent.refused("extract_memories", text="a")
        assert len(postgres_of(data_dir)) > 0
    assert postgres_of(data_dir) == []
    async with started(*given, environment={}, cwd=tmp_path, mode=mode) as opened:
        assert [found["id"] for found in await Agent(opened).search()] == [memory]
    assert postgres_of(data_dir) == []
    assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly_while_the_client_stays(
    tmp_path: Path, number: signal.Signals
) -> None:
    environment = {**clean_environment(), "MEMORYD_EMBEDDING": "fake:hashed"}
    with subprocess.Popen(
        [MEMORYD, "mcp"],
        env=environment,
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(INITIALIZE) + "\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["result"]["serverInfo"]["name"] == "memoryd"
        assert len(postgres_of(tmp_path)) > 0
        process.send_signal(number)
        process.send_signal(number)  # of a client in a hurry
        assert process.wait(20) == 0
        assert process.stdout.read() == ""
        assert "Traceback" not in (process.stderr.read() if process.stderr else "")
    assert postgres_of(tmp_path) == []


async def test_it_does_jobs_itself(tmp_path: Path) -> None:
    async with llm_server() as llm:
        llm.respond = lambda _: LEARNED
        environment = {
            "MEMORYD_LLM": "openai:scripted",
            "OPENAI_API_KEY": "sk-test",
            "OPENAI_BASE_URL": llm.base_url_openai,
        }
        async with started(environment=environment, cwd=tmp_path) as opened:
            extracted = await Agent(opened).call("extract_memories", text="Ann: I love ramen!")
            assert [change["action"] for change in extracted["changes"]] == ["insert"]
    assert postgres_of(tmp_path) == []


async def test_a_configured_database_may_be_confined_to_a_namespace(
    database_url: str, tmp_path: Path
) -> None:
    environment = {"MEMORYD_DATABASE_URL": database_url}
    async with started("--namespace", "users.ann", environment=environment, cwd=tmp_path) as opened:
        await Agent(opened).remember("Ann likes ramen.")
    async with started(environment=environment, cwd=tmp_path) as opened:
        found = await Agent(opened).search(namespace=["users", "ann"])
        assert [memory["namespace"] for memory in found] == [["users", "ann"]]
        assert await Agent(opened).search() == []


class TestForwarding:
    @pytest.fixture
    async def locked(
        self, database_url: str, keys: KeyService, tmp_path: Path
    ) -> AsyncIterator[tuple[Server, str]]:
        """A server that wants a key, and a key that may only read and write below acme."""
        await key_with(keys, *ALL_GRANTED)
        grant = Grant((), frozenset({Verb.READ, Verb.WRITE}))
        key = (await key_with(keys, grant, root=("acme",)))["x-api-key"]
        environment = {"MEMORYD_DATABASE_URL": database_url, "MEMORYD_EMBEDDING": "fake:hashed"}
        with serving(tmp_path / "server-log", environment=environment) as server:
            yield server, key

    async def test_everything_is_passed_on(
        self, locked: tuple[Server, str], tmp_path: Path, mode: str
    ) -> None:
        server, key = locked
        environment = {"MEMORYD_API_KEY": key}
        async with started(
            "--url", server.url, environment=environment, cwd=tmp_path, mode=mode
        ) as opened:
            assert opened.instructions
            assert opened.server_info is not None
            assert opened.server_info.name == "memoryd"
            agent = Agent(opened)
            names = [tool.name for tool in (await opened.list_tools()).tools]
            assert names == ["search_memories", "remember", "update_memory", "list_namespaces"]
            memory = await agent.remember("Ann likes ramen.")
            found = await asyncio.gather(*(agent.texts(query="ramen") for _ in range(30)))
            assert found == [["Ann likes ramen."]] * 30
            assert "no grant to delete" in await agent.refused("forget_memory", id=memory)
            (resource,) = (await opened.list_resources()).resources
            (read,) = (await opened.read_resource(resource.uri)).contents
            assert "ramen" in read.model_dump_json()
            assert len((await opened.list_resource_templates()).resource_templates) == 1
            assert (await opened.list_prompts()).prompts == []
            with pytest.raises(Exception, match='There is no prompt "none"'):
                await opened.get_prompt("none")
            with pytest.raises(Exception, match="There is no memory"):
                await opened.read_resource("memory:///none")

    async def test_a_namespace_confines_it(
        self, locked: tuple[Server, str], tmp_path: Path
    ) -> None:
        server, key = locked
        given = ("--url", f"{server.url}/mcp/", "--key", key, "--namespace", "users.ann")
        async with started(*given, environment={}, cwd=tmp_path) as opened:
            assert "/" not in await Agent(opened).remember("Ann likes ramen.")

    async def test_a_server_that_goes_away_is_an_error_and_not_the_end(
        self, database_url: str, tmp_path: Path
    ) -> None:
        environment = {"MEMORYD_DATABASE_URL": database_url, "MEMORYD_EMBEDDING": "fake:hashed"}
        with serving(tmp_path / "server-log", environment=environment) as server:
            async with started("--url", server.url, environment={}, cwd=tmp_path) as opened:
                await Agent(opened).remember("a")
                await asyncio.to_thread(server.stop)
                for _ in range(2):
                    with pytest.raises(Exception, match="does not answer"):
                        await opened.call_tool("remember", {"text": "b"})

    def test_what_cannot_be_reached_is_one_line(
        self, locked: tuple[Server, str], tmp_path: Path
    ) -> None:
        server, _ = locked
        for arguments, said in (
            (("--url", "http://127.0.0.1:1"), "http://127.0.0.1:1/mcp: The server does not answer"),
            (("--url", "localhost:8080"), "localhost:8080 is no address of a server"),
            (("--url", server.url), "needs an API key"),
            (("--url", server.url, "--key", "mk_a_b"), "unknown"),
        ):
            done = memoryd("mcp", *arguments, environment={}, cwd=tmp_path)
            assert done.returncode == 1
            assert done.stdout == ""
            assert said in done.stderr
            assert len(done.stderr.splitlines()) == 1, done.stderr
