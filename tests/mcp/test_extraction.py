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
from app.providers.embeddings.fake import FakeEmbedder
from app.tools import extract_memories
from tests.support.app import running
from tests.support.jobs import PATIENCE, quick
from tests.support.llm_server import LLMServer, calls, fails, says
from tests.support.mcp_client import Agent, connected

pytestmark = pytest.mark.slow

LEARNED = calls(("insert_memory", {"content": {"content": "Ann likes ramen."}, "importance": 0.8}))


@pytest.fixture
async def learning(
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


@pytest.mark.parametrize("namespace", [None, ["users", "ann"]])
async def test_what_a_text_says_is_learned(
    learning: httpx2.AsyncClient, llm: LLMServer, mode: str, namespace: list[str] | None
) -> None:
    llm.script.append(LEARNED)
    async with connected(learning, namespace=namespace, mode=mode) as opened:
        agent = Agent(opened)
        extracted = await agent.call("extract_memories", text="Ann: I love ramen, by the way.")
        assert extracted["state"] == "succeeded"
        (change,) = extracted["changes"]
        assert change["action"] == "insert"
        assert change["value"]["content"] == {"content": "Ann likes ramen."}
        (found,) = await agent.search(query="ramen")
        assert found["id"] == change["id"]
        assert change["id"].startswith("memories/") == (namespace is None)
    assert "I love ramen, by the way." in llm.requests[0].last_user_text


async def test_nothing_new_is_no_mistake(learning: httpx2.AsyncClient, llm: LLMServer) -> None:
    llm.script.append(says("There is nothing to remember."))
    async with connected(learning) as opened:
        extracted = await Agent(opened).call("extract_memories", text="Hello!")
    assert (extracted["state"], extracted["changes"]) == ("succeeded", [])


async def test_a_job_that_fails_says_why(learning: httpx2.AsyncClient, llm: LLMServer) -> None:
    llm.respond = lambda _: fails(400, "no such key")
    async with connected(learning) as opened:
        said = await Agent(opened).refused("extract_memories", text="Ann likes ramen.")
    assert said.startswith("Nothing was learned: ")
    assert "no such key" in said


async def test_a_job_that_is_tried_again_says_why(
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


async def test_a_job_that_takes_long_goes_on_by_itself(
    settings: Settings, llm: LLMServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extract_memories, "WAIT_SECONDS", 0.05)
    nobody_works = settings.model_copy(
        update={"llm": "openai:scripted", "openai_api_key": SecretStr("sk-test")}
    )
    async with (
        running(create_app(nobody_works, embedder=FakeEmbedder())) as client,
        connected(client) as opened,
    ):
        extracted = await Agent(opened).call("extract_memories", text="Ann likes ramen.")
        assert (extracted["state"], extracted["changes"]) == ("queued", [])
        job = (await client.get(f"/v1/jobs/{extracted['job_id']}")).json()
    assert job["namespace"] == ["memories"]
