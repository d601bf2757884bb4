import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import httpx2
import pytest
from pydantic import SecretStr

from app.config import Settings
from app.db.database import Database
from app.job_kinds import EXTRACT_THREAD
from app.jobs.kind import JobConflictError, RunJob
from app.jobs.worker import JobWorker
from app.main import create_app
from app.providers.embedder import FakeEmbedder
from app.resources import Resources
from tests.support.app import Store, running_with_resources
from tests.support.jobs import (
    ScriptedHandler,
    quick,
    raises,
    run_jobs,
    settled,
    until,
    worker_of,
    working,
)
from tests.support.llm_server import LLMServer, calls, llm_server, refuses
from tests.support.threads import Threads, says
from tests.threads.remembering import learned_from, remembering, shown_as_context

pytestmark = pytest.mark.slow  # each waits for workers or models

Run: TypeAlias = Callable[[], Awaitable[None]]
REMEMBERING: dict[str, Any] = {"namespace": ["users", "{user_id}"]}
ALICE: dict[str, Any] = {"manager_config": REMEMBERING, "variables": {"user_id": "alice"}}


@pytest.fixture
async def llm() -> AsyncIterator[LLMServer]:
    async with llm_server() as started:
        started.respond = remembering()
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
    """A client of a server without a worker, and the server's resources."""
    application = create_app(settings, embedder=FakeEmbedder())
    async with running_with_resources(application) as started:
        yield started


@pytest.fixture
def client(app: tuple[httpx2.AsyncClient, Resources]) -> httpx2.AsyncClient:
    return app[0]


@pytest.fixture
def resources(app: tuple[httpx2.AsyncClient, Resources]) -> Resources:
    return app[1]


@pytest.fixture
def database(resources: Resources) -> Database:
    return resources.database


@pytest.fixture
def handlers(resources: Resources) -> dict[str, RunJob]:
    return {EXTRACT_THREAD.name: EXTRACT_THREAD.bind(resources)}


@pytest.fixture
def worker(resources: Resources, handlers: dict[str, RunJob]) -> JobWorker:
    return worker_of(resources, handlers)


@pytest.fixture
def run(resources: Resources, handlers: dict[str, RunJob]) -> Run:
    """Does every job that can be started now."""
    return lambda: run_jobs(resources, handlers)


async def asking(threads: Threads, llm: LLMServer, *texts: str) -> dict[str, Any]:
    """Append messages; return the answer once the model is asked about them."""
    answer = await threads.append("t", *texts, after_seconds=0, **ALICE)
    await until(lambda: asyncio.sleep(0, bool(llm.requests)))
    return answer


async def memories(store: Store, user: str = "alice") -> list[dict[str, Any]]:
    items = await store.search(["users", user], limit=1000)
    return sorted(items, key=lambda item: item["source"].get("position", -1))


async def contents(store: Store, user: str = "alice") -> list[str]:
    return [item["value"]["content"]["content"] for item in await memories(store, user)]


async def test_memories_name_the_messages_they_come_from(
    threads: Threads, store: Store, llm: LLMServer, run: Run
) -> None:
    await threads.append("t", says("Hello", "m0"), namespace=["users", "alice"])
    answer = await threads.append("t", says("I like tea", "m1"), **ALICE)
    assert answer["job_id"] == (await threads.append("t", "And cake", **ALICE))["job_id"]
    await threads.flush("t")
    await run()
    assert len(llm.requests) == 1
    sources = [item["source"] for item in await memories(store)]
    assert [source["message_ids"] for source in sources] == [["m0"], ["m1"], ["position:2"]]
    assert [source["position"] for source in sources] == [0, 1, 2]
    assert {(source["thread_id"], source["job_id"]) for source in sources} == {
        ("t", answer["job_id"])
    }
    thread = await threads.get("t")
    assert (thread["extracted_until"], thread["pending"], thread["pending_since"]) == (3, 0, None)
    assert (thread["job_id"], thread["extracts_at"]) == (None, None)
    assert await threads.flush("t", status=200) == {"job": None}


async def test_extracted_messages_are_context_of_the_next_job(
    threads: Threads, llm: LLMServer, run: Run
) -> None:
    for n in range(3):
        await threads.append("t", *(f"{n}-{i}" for i in range(6)), after_seconds=0, **ALICE)
        await run()
    assert [learned_from(request) for request in llm.requests] == [
        [f"{n}-{i}" for i in range(6)] for n in range(3)
    ]
    assert shown_as_context(llm.requests[0]) == []
    assert shown_as_context(llm.requests[1]) == [f"0-{i}" for i in range(6)]
    assert shown_as_context(llm.requests[2]) == [
        *(f"0-{i}" for i in range(2, 6)),
        *(f"1-{i}" for i in range(6)),
    ]


async def test_flush_can_wait_for_the_memories(
    threads: Threads, store: Store, worker: JobWorker
) -> None:
    await threads.append("t", "I like tea", **ALICE)
    async with working(worker):
        answer = await threads.flush("t", status=200, headers={"Prefer": "wait=10"})
    job = answer["job"]
    assert (job["state"], job["result"]["counts"]["inserted"]) == ("succeeded", 1)
    assert await contents(store) == ["I like tea #1"]


async def test_a_message_that_arrives_while_a_job_runs_gets_the_next_job(
    threads: Threads, store: Store, llm: LLMServer, database: Database, worker: JobWorker
) -> None:
    llm.respond = remembering(delay=0.3)
    async with working(worker):
        first = await asking(threads, llm, "one")
        second = await threads.append("t", "two", after_seconds=0)
        assert second["pending"] == 2
        rows = [await settled(database, a["job_id"]) for a in (first, second)]
    assert [row["state"] for row in rows] == ["succeeded", "succeeded"]
    assert first["job_id"] != second["job_id"]
    assert [learned_from(request) for request in llm.requests] == [["one"], ["two"]]
    assert await contents(store) == ["one #1", "two #1"]


async def test_threads_of_one_user_are_extracted_one_after_another(
    threads: Threads, llm: LLMServer, store: Store, run: Run
) -> None:
    llm.respond = remembering(delay=0.05)
    for n in range(3):
        await threads.append(f"t{n}", f"from {n}", after_seconds=0, **ALICE)
    await run()
    assert llm.max_in_flight == 1
    assert sorted(await contents(store)) == [f"from {n} #1" for n in range(3)]


@pytest.mark.parametrize("way", ["append", "flush", "retry"])
async def test_messages_of_a_failed_job_wait_for_the_next_one(
    threads: Threads, llm: LLMServer, store: Store, database: Database, run: Run, way: str
) -> None:
    llm.script.append(refuses())
    failed = await threads.append("t", "one", after_seconds=0, **ALICE)
    await run()
    assert (await settled(database, failed["job_id"]))["state"] == "failed"
    assert (await threads.get("t"))["pending"] == 1
    expected = ["one #1"]
    if way == "append":
        await threads.append("t", "two", after_seconds=0)
        expected.append("two #1")
    elif way == "flush":
        await threads.flush("t")
    else:
        retried = await threads.client.post(f"/v1/jobs/{failed['job_id']}/retry")
        assert retried.status_code == 200
    await run()
    assert await contents(store) == expected


async def test_a_postponed_job_and_a_new_one_extract_each_message_once(
    threads: Threads, store: Store, resources: Resources, handlers: dict[str, RunJob]
) -> None:
    handler = ScriptedHandler(resources.database, handlers["extract_thread"])
    handler.script.append(raises(JobConflictError("scripted")))
    slow = resources.settings.model_copy(update={"job_backoff_seconds": 0.4})
    async with working(worker_of(resources, {"extract_thread": handler}, slow)):
        first = await threads.append("t", "one", after_seconds=0, **ALICE)
        await until(lambda: asyncio.sleep(0, bool(handler.jobs)))
        second = await threads.append("t", "two", after_seconds=0)
        rows = [await settled(resources.database, a["job_id"]) for a in (first, second)]
    assert first["job_id"] != second["job_id"]
    assert [row["state"] for row in rows] == ["succeeded", "succeeded"]
    assert await contents(store) == ["one #1", "two #1"]


async def test_a_long_backlog_is_extracted_in_portions(
    threads: Threads, store: Store, database: Database, run: Run
) -> None:
    for start in range(0, 250, 125):
        await threads.form("t", *(f"message {n}" for n in range(start, start + 125)))
    await threads.flush("t")
    await run()
    async with database.connection("") as connection:
        states = await connection.fetch("SELECT state FROM jobs")
    assert [row["state"] for row in states] == ["succeeded"] * 3
    texts = [item["value"]["content"]["text"] for item in await memories(store)]
    assert texts == [f"message {n}" for n in range(250)]
    assert (await threads.get("t"))["pending"] == 0


async def test_long_messages_make_short_portions(
    threads: Threads, llm: LLMServer, settings: Settings, run: Run
) -> None:
    llm.respond = lambda _: calls(("no_change", {"reason": "noise"}))
    long = settings.extract_chunk_characters // 2
    await threads.append("t", "a" * long, "b" * long, "c" * 3 * long, "d", **ALICE)
    await threads.flush("t")
    await run()
    starts = [[text[0] for text in learned_from(request)] for request in llm.requests]
    assert starts == [["a", "b"], ["c"], ["d"]]
    assert all(shown_as_context(request) == [] for request in llm.requests)
    assert (await threads.get("t"))["pending"] == 0  # although nothing was worth a memory


async def test_messages_whose_changes_await_a_review_are_proposed_once(
    threads: Threads, llm: LLMServer, database: Database, run: Run
) -> None:
    reviewed = {**ALICE, "manager_config": {**REMEMBERING, "apply": "review"}}
    answer = await threads.append("t", "one", after_seconds=0, **reviewed)
    await run()
    assert (await settled(database, answer["job_id"]))["state"] == "awaiting_review"
    assert (await threads.get("t"))["pending"] == 0
    await threads.append("t", "two", after_seconds=0)
    await run()
    assert [learned_from(request) for request in llm.requests] == [["one"], ["two"]]


async def test_a_thread_deleted_while_its_job_runs_leaves_no_memory(
    threads: Threads, llm: LLMServer, store: Store, database: Database, worker: JobWorker
) -> None:
    llm.respond = remembering(delay=0.3)
    async with working(worker):
        answer = await asking(threads, llm, "secret")
        await threads.delete("t")
        row = await settled(database, answer["job_id"])
    assert row["state"] == "cancelled"
    assert await contents(store) == []


async def test_a_job_whose_messages_another_extracted_writes_nothing(
    threads: Threads, llm: LLMServer, store: Store, database: Database, worker: JobWorker
) -> None:
    llm.respond = remembering(delay=0.3)
    async with working(worker):
        answer = await asking(threads, llm, "one")
        async with database.connection("") as connection:
            await connection.execute("UPDATE threads SET extracted_until = 1")
        row = await settled(database, answer["job_id"])
    assert (row["state"], row["attempt"], row["model_calls"]) == ("succeeded", 2, 1)
    assert await contents(store) == []


async def test_a_job_of_a_replaced_thread_marks_no_message_of_the_new_one(
    threads: Threads, llm: LLMServer, store: Store, database: Database, worker: JobWorker
) -> None:
    llm.respond = remembering(delay=0.3)
    async with working(worker):
        answer = await asking(threads, llm, "old one", "old two")
        async with database.connection("") as connection:
            await connection.execute("DELETE FROM threads")  # its server died before it cancelled
        await threads.append("t", "new", after_seconds=60, **ALICE)
        await settled(database, answer["job_id"])
    assert all("old" not in text for text in await contents(store))
    assert (await threads.get("t"))["pending"] in {0, 1}
