"""A prompt gets one new version, though workers are killed."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr

from app.config import Settings
from app.main import create_app
from app.providers.embedder import FakeEmbedder
from tests.prompts.optimize_jobs import CASE, TALK, URL, likes, model
from tests.support.app import running
from tests.support.jobs import until
from tests.support.llm_server import LLMServer
from tests.threads.processes import Worker, environment_of, worker_process

pytestmark = pytest.mark.slow

JSON = dict[str, Any]

NEW = "Answer in one sentence."


@pytest.fixture
def worker(database_url: str, llm: LLMServer, tmp_path: Path) -> Iterator[Worker]:
    """The process that is killed, and at once another one."""
    with worker_process(environment_of(database_url, llm), tmp_path / "log") as started:
        yield started


@pytest.fixture
async def client(database_url: str) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of an application without a worker."""
    settings = Settings(  # the same attempts as the workers', or a lost job waits for an hour
        database_url=database_url, llm="anthropic:scripted", job_attempts=50
    )
    with_key = settings.model_copy(update={"anthropic_api_key": SecretStr("test")})
    async with running(create_app(with_key, embedder=FakeEmbedder())) as started:
        yield started


async def submit(client: httpx2.AsyncClient, name: str) -> str:
    """Submit a job that improves a prompt and tries the new text."""
    await client.put(f"/v1/prompts/{name}", json={"text": "Answer."})
    evaluation = {"cases": [CASE]}
    body = {"prompt": {"name": name}, "trajectories": [TALK], "evaluation": evaluation}
    response = await client.post(URL, json=body)
    assert response.status_code == 202, response.text
    return str(response.json()["id"])


async def done(client: httpx2.AsyncClient, job_id: str) -> JSON:
    """Return a job once it has ended."""
    job: JSON = {}

    async def ended() -> bool:
        job.update((await client.get(f"/v1/jobs/{job_id}")).json())
        return job["state"] not in {"queued", "running"}

    await until(ended, 180)  # retries start processes, which takes long on a busy machine
    return job


async def test_a_job_killed_during_a_model_call_is_retried_and_stored_once(
    client: httpx2.AsyncClient, worker: Worker, llm: LLMServer
) -> None:
    llm.respond = model(NEW, judge=likes("one sentence"), delay=0.3)
    job_id = await submit(client, "support")
    # Three calls improve, two answer, and two judge.
    await until(lambda: asyncio.sleep(0, len(llm.requests) >= 7), 60)
    assert llm.in_flight
    worker.kill_and_start_again()
    job = await done(client, job_id)
    assert (job["state"], job["attempt"]) == ("succeeded", 2)
    assert 7 < len(llm.requests) <= 8 + 2, "no reply is paid for twice"
    new, old = (await client.get("/v1/prompts/support/versions")).json()["versions"]
    assert (new["version"], new["labels"]) == (2, ["candidate", "production"])
    assert (old["version"], old["labels"]) == (1, [])
    assert new["actor"].endswith(job_id)
    [found] = job["result"]["prompts"]
    assert (found["version"], found["text"]) == (2, NEW)
