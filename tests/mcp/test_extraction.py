"""The tool `extract_memories`."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr

from app.auth.access import Access
from app.config import Settings
from app.jobs.record import JobRecord
from app.jobs.service import JobService
from app.main import create_app
from app.providers.embedder import FakeEmbedder
from app.tools import memory_tools
from tests.support.app import running
from tests.support.jobs import PATIENCE, quick
from tests.support.llm_server import LLMServer, calls, fails
from tests.support.mcp_client import Agent, connected

pytestmark = pytest.mark.slow

EXTRACTED = calls(
    ("insert_memory", {"content": {"content": "Ann likes ramen."}, "importance": 0.8})
)


@pytest.fixture
async def worker_client(
    settings: Settings, embedder: FakeEmbedder, llm: LLMServer
) -> AsyncIterator[httpx2.AsyncClient]:
    """The application with a worker inside, whose jobs ask the scripted model."""
    async with running(
        create_app(working(settings, llm), embedder=embedder), worker=True
    ) as client:
        yield client


def working(settings: Settings, llm: LLMServer, **chosen: Any) -> Settings:
    model: dict[str, Any] = {
        "llm": "openai:scripted",
        "openai_api_key": SecretStr("sk-test"),
        "openai_base_url": llm.base_url_openai,
    }
    return quick(settings, **({"job_attempts": 2} | model | chosen))


async def test_memories_are_extracted_from_a_text(
    worker_client: httpx2.AsyncClient, llm: LLMServer
) -> None:
    llm.script.extend([EXTRACTED, calls(("no_change", {}))])
    async with connected(worker_client, namespace=["users", "ann"]) as opened:
        agent = Agent(opened)
        extracted = await agent.call("extract_memories", text="Ann: I love ramen, by the way.")
        assert extracted["state"] == "succeeded"
        (change,) = extracted["changes"]
        assert change["action"] == "insert"
        assert change["value"]["content"] == {"content": "Ann likes ramen."}
        (found,) = await agent.search(query="ramen")
        assert found["id"] == change["id"]
        assert "/" not in found["id"]
        nothing = await agent.call("extract_memories", text="Hello!")
        assert (nothing["state"], nothing["changes"]) == ("succeeded", [])
    assert "I love ramen, by the way." in llm.requests[0].last_user_text


async def test_a_failed_job_is_explained(worker_client: httpx2.AsyncClient, llm: LLMServer) -> None:
    llm.respond = lambda _: fails(400, "no such key")
    async with connected(worker_client) as opened:
        said = await Agent(opened).refused("extract_memories", text="Ann likes ramen.")
    assert said.startswith("Nothing was learned: ")
    assert "no such key" in said


async def test_a_job_that_is_retried_is_explained(
    settings: Settings, llm: LLMServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm.respond = lambda _: fails(503, "overloaded")

    async def until_it_failed(jobs: JobService, access: Access, job: str, _: float) -> JobRecord:
        async with asyncio.timeout(PATIENCE):
            while (found := await jobs.get(access, job)).error is None:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return found

    monkeypatch.setattr(JobService, "wait", until_it_failed)
    patient = working(settings, llm, job_backoff_seconds=60)
    async with (
        running(create_app(patient, embedder=FakeEmbedder()), worker=True) as client,
        connected(client) as opened,
    ):
        extracted = await Agent(opened).call("extract_memories", text="Ann likes ramen.")
    assert extracted["state"] == "queued"
    assert "overloaded" in extracted["problem"]


async def test_a_long_job_goes_on_by_itself(
    settings: Settings, llm: LLMServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_tools, "WAIT_SECONDS", 0.05)
    without_worker = settings.model_copy(
        update={"llm": "openai:scripted", "openai_api_key": SecretStr("sk-test")}
    )
    async with (
        running(create_app(without_worker, embedder=FakeEmbedder())) as client,
        connected(client) as opened,
    ):
        extracted = await Agent(opened).call("extract_memories", text="Ann likes ramen.")
        assert (extracted["state"], extracted["changes"]) == ("queued", [])
        job = (await client.get(f"/v1/jobs/{extracted['job_id']}")).json()
    assert job["namespace"] == ["memories"]
