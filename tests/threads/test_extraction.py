import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr

from app.config import Settings
from app.db.database import Database
from app.job_kinds import EXTRACT_THREAD
from app.jobs.kind import JobConflictError, RunJob
from app.main import create_app
from app.providers.embedder import FakeEmbedder
from app.resources import Resources
from app.threads import task
from tests.support.app import Store, running
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
from tests.support.llm_server import LLMServer, calls, fails, llm_server
from tests.support.threads import VERBATIM, Threads, says
from tests.threads.remembering import learned_from, remembering, shown_as_context

pytestmark = pytest.mark.slow  # each waits for workers or models

REMEMBERING: dict[str, Any] = {"namespace": ["users", "{user_id}"]}
ALICE: dict[str, Any] = {"manager_config": REMEMBERING, "variables": {"user_id": "alice"}}


@pytest.fixture
async def llm() -> AsyncIterator[LLMServer]:
    async with llm_server() as started:
        started.respond = remembering()
        yield started


@pytest.fixture
def settings(database_url: str, llm: LLMServer) -> Settings:
    settings = Settings(database_url=database_url, database_pool_size=8)
    scripted = {
        "llm": "anthropic:scripted",
        "anthropic_api_key": SecretStr("test"),
        "anthropic_base_url": llm.base_url_anthropic,
        "job_attempts": 2,
    }
    return quick(settings, **scripted)


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a server that tells the real time and has no worker."""
    async with running(create_app(settings, embedder=FakeEmbedder())) as started:
        yield started


@pytest.fixture
def database(resources: Resources) -> Database:
    return resources.database


@pytest.fixture
def handlers(resources: Resources) -> dict[str, RunJob]:
    return {EXTRACT_THREAD.name: EXTRACT_THREAD.bind(resources)}


async def memories(store: Store, user: str = "alice") -> list[dict[str, Any]]:
    items = await store.search(["users", user], limit=1000)
    return sorted(items, key=lambda item: item["source"].get("position", -1))


async def contents(store: Store, user: str = "alice") -> list[str]:
    return [item["value"]["content"]["content"] for item in await memories(store, user)]


async def job_ids(database: Database) -> list[str]:
    async with database.connection("") as connection:
        return [row["id"] for row in await connection.fetch("SELECT id FROM jobs ORDER BY id")]


async def test_memories_lead_back_to_the_messages_they_were_formed_of(
    threads: Threads, store: Store, resources: Resources, handlers: dict[str, RunJob]
) -> None:
    await threads.append("t", says("Hello", "m0"), namespace=["users", "alice"])
    answer = await threads.append("t", says("I like tea", "m1"), "And cake", **ALICE)
    await threads.flush("t")
    await run_jobs(resources, handlers)
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


async def test_what_was_learned_from_is_context_the_next_time(
    threads: Threads, llm: LLMServer, resources: Resources, handlers: dict[str, RunJob]
) -> None:
    for n in range(3):
        await threads.append("t", *(f"{n}-{i}" for i in range(6)), after_seconds=0, **ALICE)
        await run_jobs(resources, handlers)
    assert [learned_from(request) for request in llm.requests] == [
        [f"{n}-{i}" for i in range(6)] for n in range(3)
    ]
    assert shown_as_context(llm.requests[0]) == []
    assert shown_as_context(llm.requests[1]) == [f"0-{i}" for i in range(6)]
    assert shown_as_context(llm.requests[2]) == [
        *(f"0-{i}" for i in range(2, 6)),
        *(f"1-{i}" for i in range(6)),
    ]


async def test_several_appends_before_the_quiet_lead_to_one_extraction(
    threads: Threads, llm: LLMServer, resources: Resources, handlers: dict[str, RunJob]
) -> None:
    for n in range(4):
        answer = await threads.append("t", str(n), after_seconds=60, **ALICE)
    await threads.flush("t")
    await run_jobs(resources, handlers)
    assert [learned_from(request) for request in llm.requests] == [["0", "1", "2", "3"]]
    assert (await settled(resources.database, answer["job_id"]))["state"] == "succeeded"


async def test_flush_can_wait_for_the_memories(
    threads: Threads, store: Store, resources: Resources, handlers: dict[str, RunJob]
) -> None:
    await threads.append("t", "I like tea", **ALICE)
    async with working(worker_of(resources, handlers)):
        answer = await threads.flush("t", status=200, headers={"Prefer": "wait=10"})
    job = answer["job"]
    assert (job["state"], job["result"]["counts"]["inserted"]) == ("succeeded", 1)
    assert await contents(store) == ["I like tea #1"]


async def test_a_message_that_arrives_while_a_job_runs_has_the_next_one(
    threads: Threads,
    store: Store,
    llm: LLMServer,
    resources: Resources,
    handlers: dict[str, RunJob],
) -> None:
    llm.respond = remembering(delay=0.5)
    async with working(worker_of(resources, handlers)):
        first = await threads.append("t", "one", after_seconds=0, **ALICE)
        await until(lambda: asyncio.sleep(0, bool(llm.requests)))
        second = await threads.append("t", "two", after_seconds=0)
        assert second["pending"] == 2
        rows = [await settled(resources.database, a["job_id"]) for a in (first, second)]
    assert [row["state"] for row in rows] == ["succeeded", "succeeded"]
    assert first["job_id"] != second["job_id"]
    assert [learned_from(request) for request in llm.requests] == [["one"], ["two"]]
    assert await contents(store) == ["one #1", "two #1"]


async def test_a_steady_trickle_does_not_put_memories_off_for_ever(
    threads: Threads,
    llm: LLMServer,
    store: Store,
    resources: Resources,
    handlers: dict[str, RunJob],
) -> None:
    sent = [f"drop {n}" for n in range(20)]
    async with working(worker_of(resources, handlers)):
        for text in sent:
            await threads.append("t", text, after_seconds=1.5, max_wait_seconds=2, **ALICE)
            await asyncio.sleep(0.25)
        during = len(llm.requests)
        await threads.flush("t", status=200, headers={"Prefer": "wait=10"})
    assert during >= 1
    assert [text for request in llm.requests for text in learned_from(request)] == sent
    assert await contents(store) == [f"{text} #1" for text in sent]


async def test_threads_of_many_users_are_learned_from_at_once(
    threads: Threads,
    llm: LLMServer,
    store: Store,
    resources: Resources,
    handlers: dict[str, RunJob],
) -> None:
    llm.respond = remembering(delay=0.5)
    users = [f"user{n}" for n in range(8)]
    began = time.perf_counter()
    async with working(worker_of(resources, handlers)):
        answers = await asyncio.gather(
            *(
                threads.append(
                    f"thread of {user}",
                    f"{user} says hello",
                    manager_config=REMEMBERING,
                    variables={"user_id": user},
                    after_seconds=0,
                )
                for user in users
            )
        )
        for answer in answers:
            await settled(resources.database, answer["job_id"])
    assert time.perf_counter() - began < 8 * 0.5
    assert llm.max_in_flight >= 4
    for user in users:
        assert await contents(store, user) == [f"{user} says hello #1"]


async def test_two_threads_of_one_user_are_learned_from_one_after_another(
    threads: Threads,
    llm: LLMServer,
    store: Store,
    resources: Resources,
    handlers: dict[str, RunJob],
) -> None:
    llm.respond = remembering(delay=0.05)
    for n in range(4):
        await threads.append(f"t{n}", f"from {n}", after_seconds=0, **ALICE)
    await run_jobs(resources, handlers)
    assert llm.max_in_flight == 1
    assert sorted(await contents(store)) == [f"from {n} #1" for n in range(4)]


async def test_messages_of_a_failed_job_stay_and_the_next_append_takes_them(
    threads: Threads,
    llm: LLMServer,
    store: Store,
    resources: Resources,
    handlers: dict[str, RunJob],
) -> None:
    llm.script.append(fails(400))
    failed = await threads.append("t", "one", after_seconds=0, **ALICE)
    await run_jobs(resources, handlers)
    assert (await settled(resources.database, failed["job_id"]))["state"] == "failed"
    assert (await threads.get("t"))["pending"] == 1
    await threads.append("t", "two", after_seconds=0)
    await run_jobs(resources, handlers)
    assert await contents(store) == ["one #1", "two #1"]


@pytest.mark.parametrize("how", ["flush", "retry"])
async def test_messages_of_a_failed_job_are_learned_from_when_it_is_asked_for(
    threads: Threads,
    llm: LLMServer,
    store: Store,
    resources: Resources,
    handlers: dict[str, RunJob],
    how: str,
) -> None:
    llm.script.append(fails(400))
    failed = await threads.append("t", "one", after_seconds=0, **ALICE)
    await run_jobs(resources, handlers)
    if how == "flush":
        await threads.flush("t")
    else:
        retried = await threads.client.post(f"/v1/jobs/{failed['job_id']}/retry")
        assert retried.status_code == 200
    await run_jobs(resources, handlers)
    assert await contents(store) == ["one #1"]


async def test_a_job_to_be_tried_again_and_a_new_one_learn_from_each_message_once(
    threads: Threads,
    store: Store,
    resources: Resources,
    handlers: dict[str, RunJob],
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


async def test_a_long_backlog_is_learned_from_in_portions(
    threads: Threads, store: Store, resources: Resources, handlers: dict[str, RunJob]
) -> None:
    for start in range(0, 250, 125):
        await threads.form("t", *(f"message {n}" for n in range(start, start + 125)))
    await threads.flush("t")
    await run_jobs(resources, handlers)
    jobs = [await settled(resources.database, id_) for id_ in await job_ids(resources.database)]
    assert [job["state"] for job in jobs] == ["succeeded"] * 3
    texts = [item["value"]["content"]["text"] for item in await memories(store)]
    assert texts == [f"message {n}" for n in range(250)]
    assert (await threads.get("t"))["pending"] == 0


async def test_long_messages_make_short_portions(
    threads: Threads, llm: LLMServer, resources: Resources, handlers: dict[str, RunJob]
) -> None:
    llm.respond = lambda _: calls(("no_change", {"reason": "noise"}))
    long = task.MAX_CHARACTERS // 2
    await threads.append("t", "a" * long, "b" * long, "c" * 3 * long, "d", **ALICE)
    await threads.flush("t")
    await run_jobs(resources, handlers)
    starts = [[text[0] for text in learned_from(request)] for request in llm.requests]
    assert starts == [["a", "b"], ["c"], ["d"]]
    assert all(shown_as_context(request) == [] for request in llm.requests)


async def test_messages_that_ask_for_a_review_are_proposed_once(
    threads: Threads, llm: LLMServer, resources: Resources, handlers: dict[str, RunJob]
) -> None:
    reviewed = {**ALICE, "manager_config": {**REMEMBERING, "apply": "review"}}
    answer = await threads.append("t", "one", after_seconds=0, **reviewed)
    await run_jobs(resources, handlers)
    job = await settled(resources.database, answer["job_id"])
    assert job["state"] == "awaiting_review"
    assert (await threads.get("t"))["pending"] == 0
    await threads.append("t", "two", after_seconds=0)
    await run_jobs(resources, handlers)
    assert [learned_from(request) for request in llm.requests] == [["one"], ["two"]]


async def test_a_message_that_says_nothing_is_learned_from_too(
    threads: Threads, llm: LLMServer, resources: Resources, handlers: dict[str, RunJob]
) -> None:
    llm.respond = lambda _: calls(("no_change", {"reason": "nothing new"}))
    answer = await threads.append("t", "hm", after_seconds=0, **ALICE)
    await run_jobs(resources, handlers)
    assert (await settled(resources.database, answer["job_id"]))["state"] == "succeeded"
    assert (await threads.get("t"))["pending"] == 0


async def test_a_thread_deleted_while_its_job_runs_leaves_no_memory(
    threads: Threads,
    llm: LLMServer,
    store: Store,
    resources: Resources,
    handlers: dict[str, RunJob],
) -> None:
    llm.respond = remembering(delay=0.5)
    async with working(worker_of(resources, handlers)):
        answer = await threads.append("t", "secret", after_seconds=0, **ALICE)
        await until(lambda: asyncio.sleep(0, bool(llm.requests)))
        await threads.delete("t")
        row = await settled(resources.database, answer["job_id"])
    assert row["state"] == "cancelled"
    assert await contents(store) == []


async def test_a_job_whose_messages_another_learned_from_writes_nothing(
    threads: Threads,
    llm: LLMServer,
    store: Store,
    resources: Resources,
    handlers: dict[str, RunJob],
) -> None:
    llm.respond = remembering(delay=0.3)
    async with working(worker_of(resources, handlers)):
        answer = await threads.append("t", "one", after_seconds=0, **ALICE)
        await until(lambda: asyncio.sleep(0, bool(llm.requests)))
        async with resources.database.connection("") as connection:
            await connection.execute("UPDATE threads SET extracted_until = 1")
        row = await settled(resources.database, answer["job_id"])
    assert (row["state"], row["attempt"], row["model_calls"]) == ("succeeded", 2, 1)
    assert await contents(store) == []


async def test_a_job_of_a_thread_that_was_begun_anew_takes_no_message_of_the_new_one_for_learned(
    threads: Threads,
    llm: LLMServer,
    store: Store,
    resources: Resources,
    handlers: dict[str, RunJob],
) -> None:
    llm.respond = remembering(delay=0.5)
    async with working(worker_of(resources, handlers)):
        answer = await threads.append("t", "old one", "old two", after_seconds=0, **ALICE)
        await until(lambda: asyncio.sleep(0, bool(llm.requests)))
        async with resources.database.connection("") as connection:
            await connection.execute("DELETE FROM threads")  # its server died before it cancelled
        await threads.append("t", "new", after_seconds=60, **ALICE)
        await settled(resources.database, answer["job_id"])
    assert all("old" not in text for text in await contents(store))
    assert (await threads.get("t"))["pending"] in {0, 1}


async def test_threads_that_need_no_model_keep_their_messages_as_items(
    threads: Threads, store: Store, resources: Resources, handlers: dict[str, RunJob]
) -> None:
    for n in range(3):
        await threads.form("t", f"sentence {n}", after_seconds=0, manager_config=VERBATIM)
        await run_jobs(resources, handlers)
    items = await memories(store)
    assert [item["value"]["content"]["text"] for item in items] == [
        f"sentence {n}" for n in range(3)
    ]
    assert Counter(item["source"]["position"] for item in items) == {0: 1, 1: 1, 2: 1}
