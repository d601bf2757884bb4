"""A failed extraction never counts as done, and what a reply did well is never lost."""

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr

from app.changes.apply import ChangeApplier
from app.config import Settings
from app.db.database import ALL_ROOTS
from app.job_kinds import handlers
from app.jobs import worker
from app.main import create_app
from app.providers.embedder import FakeEmbedder
from app.providers.errors import UnavailableError
from app.resources import Resources
from tests.support.app import running_with_resources
from tests.support.jobs import quick, worker_of, working
from tests.support.llm_server import (
    LLMServer,
    Received,
    Reply,
    calls,
    cut,
    fails,
    refuses,
)
from tests.support.llm_server import says as answers
from tests.support.threads import Threads, says

pytestmark = pytest.mark.slow  # each waits for a worker

JSON = dict[str, Any]

SAID = "Bo skis"
SKIS = ("insert_memory", {"content": {"content": "Bo skis."}, "importance": 0.5})
TRAM = ("insert_memory", {"content": {"content": "Bo takes the tram."}, "importance": 0.5})
SWIMS = ("insert_memory", {"content": {"content": "Bo swims in lakes."}, "importance": 0.5})
CYCLES = ("insert_memory", {"content": {"content": "Bo owns two bicycles."}, "importance": 0.5})
WRONG = ("insert_memory", {"content": {"text": "Bo"}, "importance": 0.5})
HEADERS = {"prefer": "wait=20"}


@pytest.fixture(params=["openai", "anthropic"])
def provider(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def settings(database_url: str, llm: LLMServer) -> Settings:
    return quick(
        Settings(database_url=database_url, database_pool_size=8),
        llm="openai:scripted",
        allowed_models=["openai:scripted", "anthropic:scripted"],
        openai_api_key=SecretStr("test"),
        openai_base_url=llm.base_url_openai,
        anthropic_api_key=SecretStr("test"),
        anthropic_base_url=llm.base_url_anthropic,
        job_attempts=2,
    )


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "POLL_SECONDS", 0.02)


@pytest.fixture
async def app(
    settings: Settings,
) -> AsyncIterator[tuple[httpx2.AsyncClient, Resources]]:
    async with (
        running_with_resources(create_app(settings, embedder=FakeEmbedder())) as (
            client,
            resources,
        ),
        working(worker_of(resources, handlers(resources))),
    ):
        yield client, resources


@pytest.fixture
def client(app: tuple[httpx2.AsyncClient, Resources]) -> httpx2.AsyncClient:
    return app[0]


async def extract(client: httpx2.AsyncClient, said: str = SAID, **config: Any) -> JSON:
    body = {"namespace": ["bo"], "messages": [["user", said]], "manager_config": config}
    response = await client.post("/v1/jobs/extract", json=body, headers=HEADERS)
    assert response.status_code == 200, response.text
    job: JSON = response.json()
    return job


async def texts(client: httpx2.AsyncClient) -> list[str]:
    found = await client.post("/v1/store/items/search", json={"namespace_prefix": ["bo"]})
    return sorted(item["value"]["content"]["content"] for item in found.json()["items"])


@pytest.mark.parametrize("bad", [answers(""), answers("Bo skis!"), cut("Bo"), calls(WRONG)])
async def test_messages_stay_pending_until_they_are_read(
    client: httpx2.AsyncClient, llm: LLMServer, bad: Reply
) -> None:
    threads = Threads(client)
    llm.respond = lambda _: bad
    config = {"namespace": ["bo"]}
    await threads.append("t", says(SAID), manager_config=config, after_seconds=3_600)
    job = (await threads.flush("t", headers=HEADERS, status=200))["job"]
    assert (job["state"], job["attempt"]) == ("failed", 2)
    assert job["error"]["code"] == "unusable_reply"
    assert (await threads.get("t"))["pending"] == 1
    llm.respond = lambda _: calls(SKIS)
    job = (await threads.flush("t", headers=HEADERS, status=200))["job"]
    assert (job["state"], await texts(client)) == ("succeeded", ["Bo skis."])
    assert (await threads.get("t"))["pending"] == 0


async def test_a_provider_that_recovers_is_asked_anew(
    client: httpx2.AsyncClient, llm: LLMServer, provider: str
) -> None:
    llm.script.extend([answers(""), answers("I note that."), calls(SKIS)])
    job = await extract(client, model=f"{provider}:scripted")
    assert (job["state"], job["attempt"], await texts(client)) == ("succeeded", 2, ["Bo skis."])
    assert llm.requests[2].body == llm.requests[0].body


async def test_a_refusal_is_a_failure_that_is_not_repeated(
    client: httpx2.AsyncClient, llm: LLMServer
) -> None:
    llm.script.append(refuses("I will not."))
    job = await extract(client)
    assert (job["state"], job["attempt"], job["error"]["code"]) == ("failed", 1, "refused")
    assert "I will not" in job["error"]["detail"]


async def test_no_attempt_pays_for_a_reply_again(
    client: httpx2.AsyncClient,
    llm: LLMServer,
    app: tuple[httpx2.AsyncClient, Resources],
    provider: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    apply, faults = ChangeApplier.apply, [UnavailableError("The embedder is away.")]

    async def apply_later(*arguments: Any, **named: Any) -> None:
        if faults:
            raise faults.pop()
        await apply(*arguments, **named)

    monkeypatch.setattr(ChangeApplier, "apply", apply_later)
    llm.script.extend([calls(SKIS, WRONG), calls(TRAM)])
    job = await extract(client, model=f"{provider}:scripted")
    assert (job["state"], job["attempt"]) == ("succeeded", 2)
    assert (job["usage"]["model_calls"], len(llm.requests)) == (2, 2)
    assert await texts(client) == ["Bo skis.", "Bo takes the tram."]
    events = (await client.get(f"/v1/jobs/{job['id']}/events")).text
    assert events.count("event: reply_reused") == 2
    async with app[1].database.connection(ALL_ROOTS) as connection:
        assert await connection.fetchval("SELECT count(*) FROM job_replies") == 0


def takes_back(received: Received) -> bool:
    """Return whether a server with strict rules takes a conversation's turns."""
    messages = [m for m in received.body["messages"] if m["role"] != "system"]
    roles = [message["role"] for message in messages]
    contents = [message.get("content") or [{"type": "nothing"}] for message in messages]
    is_plain = all(
        isinstance(content, str) or all(part["type"] == "text" for part in content)
        for content in contents
    )
    fields = {field for message in messages for field in message}
    expected = ["user", "assistant"] * len(roles)
    return is_plain and roles == expected[: len(roles)] and fields == {"role", "content"}


@pytest.mark.parametrize("status", [400, 404, 500])
async def test_a_refused_second_request_is_sent_in_the_plainest_form(
    client: httpx2.AsyncClient, llm: LLMServer, provider: str, status: int
) -> None:
    def respond(received: Received) -> Reply:
        if not takes_back(received):
            return fails(status, "Unexpected role or field", retry_after=0.01)
        return calls(SKIS, WRONG) if len(received.messages) == 1 else calls(TRAM)

    llm.respond = respond
    job = await extract(client, model=f"{provider}:scripted")
    assert job["result"]["counts"]["inserted"] == 2
    assert job["usage"]["model_calls"] == 2
    last = llm.requests[-1].last_user_text
    assert "Result of call 1 (insert_memory): Memory m1 inserted." in last
    assert "Result of call 2 (insert_memory): Not done: content does not fit" in last
    assert last.endswith("they are done.")


@pytest.mark.parametrize(
    "refusal", [fails(400, "No."), fails(413, "Too long."), answers("No."), refuses()]
)
async def test_valid_changes_outlive_a_repair_that_fails(
    client: httpx2.AsyncClient, llm: LLMServer, refusal: Reply
) -> None:
    llm.script.append(calls(SKIS, WRONG))
    llm.respond = lambda _: refusal
    job = await extract(client)
    assert (job["state"], job["attempt"], await texts(client)) == ("succeeded", 1, ["Bo skis."])
    (rejected,) = job["result"]["rejected"]
    assert rejected["reason"].startswith("content does not fit")


async def test_valid_changes_outlive_a_provider_that_stays_away(
    client: httpx2.AsyncClient, llm: LLMServer
) -> None:
    llm.script.append(calls(SKIS, WRONG))
    llm.respond = lambda _: fails(429, retry_after=0.01)
    job = await extract(client)
    assert (job["state"], job["attempt"], await texts(client)) == ("succeeded", 2, ["Bo skis."])
    assert (job["usage"]["model_calls"], len(job["result"]["rejected"])) == (1, 1)


async def test_a_server_that_hands_on_one_call_is_asked_until_there_is_none(
    client: httpx2.AsyncClient, llm: LLMServer, provider: str
) -> None:
    model = f"{provider}:scripted"
    llm.script.extend([calls(SKIS), calls(TRAM), calls(("done", {}))])
    job = await extract(client, "I ski. I take the tram.", model=model)
    assert await texts(client) == ["Bo skis.", "Bo takes the tram."]
    assert job["usage"]["model_calls"] == 3
    llm.script.extend([calls(SWIMS), calls(("no_change", {}))])
    job = await extract(client, "I swim", model=model)
    assert (job["usage"]["model_calls"], len(await texts(client))) == (2, 3)
    llm.script.extend([calls(("no_change", {}), ("no_change", {})), calls(CYCLES)])
    await extract(client, "Well. Well.", model=model)
    job = await extract(client, "I cycle. A lot.", model=model)
    assert (job["usage"]["model_calls"], len(await texts(client))) == (1, 4)
