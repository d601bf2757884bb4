"""Threads of a model with a small context: every message is read, and no part is paid for twice."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import httpx2
import pytest
from pydantic import SecretStr

from app.config import Settings
from app.job_kinds import EXTRACT, EXTRACT_THREAD
from app.main import create_app
from app.providers.embedder import FakeEmbedder
from app.resources import Resources
from tests.support.app import Store, running_with_resources
from tests.support.jobs import quick, run_jobs, until
from tests.support.llm_server import LLMServer, Received, Reply, fails, llm_server
from tests.support.threads import Threads
from tests.threads.remembering import learned_from, remembering

pytestmark = pytest.mark.slow  # each runs jobs

CONTEXT = 6_000
TOO_LONG = fails(400, "prompt is too long: 9120 tokens > 4096 maximum")
ALICE: dict[str, Any] = {
    "manager_config": {"namespace": ["users", "{user_id}"]},
    "variables": {"user_id": "alice"},
    "after_seconds": 3_600,
}
Work: TypeAlias = Callable[[], Awaitable[None]]


@pytest.fixture
async def llm() -> AsyncIterator[LLMServer]:
    async with llm_server() as started:
        started.respond = reading(CONTEXT)
        yield started


@pytest.fixture
def settings(database_url: str, llm: LLMServer) -> Settings:
    return quick(
        Settings(database_url=database_url, database_pool_size=8),
        llm="anthropic:scripted",
        anthropic_api_key=SecretStr("test"),
        anthropic_base_url=llm.base_url_anthropic,
        job_attempts=2,
    )


@pytest.fixture
async def app(settings: Settings) -> AsyncIterator[tuple[httpx2.AsyncClient, Resources]]:
    async with running_with_resources(create_app(settings, embedder=FakeEmbedder())) as started:
        yield started


@pytest.fixture
def client(app: tuple[httpx2.AsyncClient, Resources]) -> httpx2.AsyncClient:
    return app[0]


@pytest.fixture
def work(app: tuple[httpx2.AsyncClient, Resources]) -> Work:
    """Does every job that can be started now."""
    resources = app[1]
    handlers = {kind.name: kind.bind(resources) for kind in (EXTRACT, EXTRACT_THREAD)}
    return lambda: run_jobs(resources, handlers)


def reading(
    characters: int, *, refused: str | None = None, breaks: str | None = None
) -> Callable[[Received], Reply]:
    """Return a model that remembers all that it reads, unless it is too long or has some words."""
    remember = remembering()

    def respond(received: Received) -> Reply:
        if len(received.last_user_text) > characters:
            return TOO_LONG
        if refused is not None and refused in received.last_user_text:
            return fails(400, "The prompt was filtered by the content policy.")
        if breaks is not None and breaks in received.last_user_text:
            return Reply("I would rather talk about it.")
        return remember(received)

    return respond


def said(number: int) -> str:
    return f"Message {number:03}: " + f"on day {number} something happened. " * 8


async def remembered(store: Store) -> list[int]:
    """Return the numbers of the messages that memories were made of; one comes once."""
    items = await store.search(["users", "alice"], limit=1000)
    texts = [item["value"]["content"]["content"] for item in items]
    assert all(text.endswith(" #1") for text in texts), "no message is read twice"
    return sorted(int(text[8:11]) for text in texts)


def refusals(llm: LLMServer) -> int:
    return sum(len(request.last_user_text) > CONTEXT for request in llm.requests)


async def test_a_long_thread_is_read_to_its_end_and_the_size_remembered(
    threads: Threads, store: Store, llm: LLMServer, settings: Settings, work: Work
) -> None:
    await threads.append("t", *map(said, range(60)), **ALICE)
    await threads.flush("t")
    await work()
    assert (await threads.get("t"))["pending"] == 0
    assert await remembered(store) == list(range(60))
    assert refusals(llm) < 6
    assert len(llm.requests) < 16
    llm.requests.clear()
    # Another process, which knows the size from the database.
    application = create_app(settings, embedder=FakeEmbedder())
    async with running_with_resources(application) as (client, resources):
        others = Threads(client)
        await others.append("u", *map(said, range(60, 80)), **ALICE)
        await others.flush("u")
        await run_jobs(resources, {EXTRACT_THREAD.name: EXTRACT_THREAD.bind(resources)})
        assert (await others.get("u"))["pending"] == 0
    assert refusals(llm) == 0
    assert await remembered(store) == list(range(80))


async def test_memories_and_a_long_message_leave_room_for_each_other(
    threads: Threads, store: Store, llm: LLMServer, work: Work
) -> None:
    for number in range(30):
        text = f"Fact {number}: " + "as was said before " * 45
        await store.put(
            ["users", "alice"], f"k{number}", {"kind": "memory", "content": {"content": text}}
        )
    await threads.append("t", "Short.", "long " * 5_000 + "end", **ALICE)
    await threads.flush("t")
    await work()
    assert (await threads.get("t"))["pending"] == 0
    short, long = [r for r in llm.requests if len(r.last_user_text) <= CONTEXT]
    assert 0 < short.last_user_text.count("<memory id") < 30
    assert "others are kept that you do not see" in short.last_user_text
    left_out = int(long.last_user_text.split("[… ")[1].split()[0].replace(",", ""))
    assert (
        left_out + len(learned_from(long)[0]) - len("\n[…  characters left out …]\n") - 6 == 25_003
    )
    assert "<memory id" not in long.last_user_text


async def test_one_message_that_is_refused_is_left_out_alone(
    threads: Threads, store: Store, llm: LLMServer, work: Work
) -> None:
    llm.respond = reading(50_000, refused="Message 013")
    await threads.append("t", *map(said, range(40)), **ALICE)
    job = (await threads.flush("t"))["job"]
    await work()
    thread = await threads.get("t")
    assert (thread["pending"], await remembered(store)) == (0, [n for n in range(40) if n != 13])
    result = (await threads.client.get(f"/v1/jobs/{job['id']}")).json()["result"]
    assert result["messages_read"] == 40
    assert "position:13" in result["rejected"][0]["reason"]
    assert "content policy" in result["rejected"][0]["reason"]


async def test_a_model_that_refuses_everything_costs_few_requests_and_no_message(
    threads: Threads, llm: LLMServer, work: Work
) -> None:
    llm.respond = reading(50_000, refused="Message")
    await threads.append("t", *map(said, range(40)), **ALICE)
    job = (await threads.flush("t"))["job"]
    await work()
    assert (await threads.get("t"))["pending"] == 40
    assert (await threads.client.get(f"/v1/jobs/{job['id']}")).json()["state"] == "failed"
    assert len(llm.requests) < 50


async def test_a_part_that_fails_costs_none_of_the_parts_before_it(
    threads: Threads, store: Store, llm: LLMServer, work: Work
) -> None:
    llm.respond = reading(CONTEXT, breaks="Message 060")
    await threads.append("t", *map(said, range(90)), **ALICE)
    first = (await threads.flush("t"))["job"]

    async def has_failed() -> bool:
        await work()
        listed = (await threads.client.get("/v1/jobs", params={"state": "failed"})).json()
        return bool(listed["jobs"])

    await until(has_failed)
    thread = await threads.get("t")
    end = thread["extracted_until"]
    assert 40 < end <= 60
    assert await remembered(store) == list(range(end))
    job_id, read = first["id"], 0
    while (job := (await threads.client.get(f"/v1/jobs/{job_id}")).json())["state"] == "succeeded":
        read += job["result"]["messages_read"]
        job_id = job["result"]["follow_up_job_id"]
    assert (job["state"], job["error"]["code"], read) == ("failed", "unusable_reply", end)
    llm.respond = reading(CONTEXT)
    llm.requests.clear()
    await threads.flush("t")
    await work()
    assert learned_from(llm.requests[0])[0] == said(end).strip()
    assert await remembered(store) == list(range(90))


async def test_an_attempt_that_knows_the_size_uses_the_replies_of_the_one_that_found_it(
    threads: Threads, store: Store, llm: LLMServer, work: Work
) -> None:
    read, broken = reading(CONTEXT), list[str]()
    answered: list[str] = []

    def respond(received: Received) -> Reply:
        text = received.messages[0].text
        if "Message 025" in text and len(text) <= CONTEXT and broken in ([], [text]):
            broken[:] = [*broken, text]
            return Reply("I would rather talk about it.")
        reply = read(received)
        answered.extend([text] if reply.calls else [])
        return reply

    llm.respond = respond
    messages = [{"role": "user", "content": said(number)} for number in range(40)]
    body = {"namespace": ["users", "alice"], "messages": messages}
    response = await threads.client.post("/v1/jobs/extract", json=body)

    async def has_succeeded() -> bool:
        await work()
        job = (await threads.client.get(f"/v1/jobs/{response.json()['id']}")).json()
        return (job["state"], job["attempt"]) == ("succeeded", 2)

    await until(has_succeeded)
    assert await remembered(store) == list(range(40))
    assert len(answered) == len(set(answered)) < 12
