"""What becomes of work in LangMem's local executor, and in memoryd's jobs."""

import asyncio
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Protocol, cast

import pytest
from langchain_core.messages import AIMessage

from tests.langmem import theirs
from tests.langmem.both import TALK
from tests.langmem.decisions import JSON
from tests.langmem.original import (
    Asked,
    ChatModel,
    InMemoryStore,
    ReflectionExecutor,
    calling,
)
from tests.langmem.ours import Memoryd, serving
from tests.langmem.stores import MEMORY, manager_of, remembers
from tests.support.jobs import until
from tests.support.llm_server import LLMServer, Reply, calls, fails, llm_server
from tests.support.load import at_once

pytestmark = pytest.mark.slow

TEA = "Ana likes tea."
PAYLOAD: JSON = {"messages": TALK}
SECONDS = 0.3

DIES = pytest.mark.filterwarnings(
    "ignore:Exception in thread:pytest.PytestUnhandledThreadExceptionWarning"
)
"""LangMem's worker dies of what is done to it."""


class Executor(Protocol):
    """What is used of LangMem's local executor."""

    def submit(
        self, payload: JSON, /, config: JSON, *, after_seconds: int = 0, thread_id: str
    ) -> "Future[Any]": ...

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None: ...


class Local:
    """LangMem's executor over a store, and what its model is asked."""

    def __init__(self, respond: Callable[[Asked], AIMessage]) -> None:
        self.store = InMemoryStore()
        self.model = ChatModel(respond=respond)
        manager = manager_of(self.store, model=self.model, namespace=("users", "{id}"))
        self.executor = cast(Executor, ReflectionExecutor(manager, store=self.store))

    def submit(self, user: str = "ana", *, after_seconds: int = 0) -> "Future[Any]":
        config = {"configurable": {"id": user}}
        return self.executor.submit(
            dict(PAYLOAD), config, after_seconds=after_seconds, thread_id=user
        )

    @property
    def worker(self) -> threading.Thread:
        worker: threading.Thread = vars(self.executor)["_worker"]
        return worker

    @property
    def waiting(self) -> "queue.PriorityQueue[Any]":
        waiting: queue.PriorityQueue[Any] = vars(self.executor)["_task_queue"]
        return waiting

    async def texts(self) -> list[str]:
        values = (await theirs.items(self.store, ["users"])).values()
        return [value["content"]["content"] for value in values]


@contextmanager
def local(respond: Callable[[Asked], AIMessage]) -> Iterator[Local]:
    opened = Local(respond)
    try:
        yield opened
    finally:
        opened.executor.shutdown(wait=False)
        opened.worker.join(10)


def remembering(_: Asked) -> AIMessage:
    return calling(("Memory", {"content": TEA}))


def slowly(_: Asked) -> AIMessage:
    time.sleep(SECONDS)
    return calling(("Memory", {"content": TEA}))


async def result_of(future: "Future[Any]") -> Any:
    return await asyncio.wait_for(asyncio.wrap_future(future), 20)


async def stopped(opened: Local, **how: Any) -> None:
    await asyncio.to_thread(opened.executor.shutdown, **how)
    await asyncio.to_thread(opened.worker.join, 10)


def replying(delay: float = 0) -> Reply:
    return Reply(calls=(remembers(TEA),), stop="tools", delay=delay)


def to_learn(namespace: list[str], **more: Any) -> JSON:
    return {"messages": TALK, "manager_config": MEMORY, "namespace": namespace, **more}


async def test_users_wait_for_one_another_in_langmem_and_not_in_memoryd(memoryd: Memoryd) -> None:
    users = ("ana", "ben", "cat", "dan")
    with local(slowly) as opened:
        started = time.monotonic()
        for future in [opened.submit(user) for user in users]:
            await result_of(future)
        assert time.monotonic() - started >= len(users) * SECONDS

    memoryd.llm.respond = lambda _: replying(SECONDS)
    await at_once(
        len(users), lambda number: memoryd.extract(**to_learn(["parallel", users[number]]))
    )
    assert memoryd.llm.max_in_flight >= len(users)


@DIES
async def test_a_cancelled_task_runs_in_langmem_and_not_in_memoryd(memoryd: Memoryd) -> None:
    with local(remembering) as opened:
        future = opened.submit(after_seconds=3600)
        await until(lambda: asyncio.sleep(0, opened.waiting.empty()))  # its worker sleeps with it
        await stopped(opened, cancel_futures=True)
        assert future.cancelled()
        assert await opened.texts() == [TEA]  # and at once, though it was due in an hour

    memoryd.llm.respond = lambda _: replying()
    body = {"messages": TALK, "manager_config": MEMORY, "namespace": ["waits", "ana"]}
    appended = await memoryd.client.post(
        "/v1/threads/waits/messages", json={**body, "after_seconds": 3600}
    )
    job_id = appended.json()["job_id"]
    assert (await memoryd.look(job_id))["state"] == "queued"
    assert (await memoryd.cancel(job_id))["state"] == "cancelled"
    assert memoryd.llm.requests == []
    assert await memoryd.items(["waits", "ana"]) == {}


async def test_what_is_cancelled_while_it_runs_is_written_by_langmem_and_not_by_memoryd(
    memoryd: Memoryd,
) -> None:
    with local(slowly) as opened:
        future = opened.submit()
        await until(lambda: asyncio.sleep(0, bool(opened.model.asked)))
        assert future.cancel()
        await stopped(opened)
        assert await opened.texts() == [TEA]

    memoryd.llm.respond = lambda _: replying(2)
    job = await memoryd.job("extract", wait=0, status=202, **to_learn(["running", "ana"]))
    await until(lambda: asyncio.sleep(0, bool(memoryd.llm.requests)))
    await memoryd.cancel(job["id"])
    assert (await memoryd.ended(job["id"]))["state"] == "cancelled"
    assert await memoryd.items(["running", "ana"]) == {}


async def test_what_fails_once_is_lost_in_langmem_and_tried_again_by_memoryd(
    memoryd: Memoryd, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Asked) -> AIMessage:
        raise ConnectionError("the model's server is restarted")

    with local(fail) as opened:
        with pytest.raises(ConnectionError):
            await result_of(opened.submit())
        assert len(opened.model.asked) == 1
        assert await opened.texts() == []

    monkeypatch.setattr("app.jobs.worker.LOOK_SECONDS", 0.05)
    memoryd.llm.script += [fails(500, retry_after=0.01)] * 4  # more than one attempt overcomes
    memoryd.llm.respond = lambda _: replying()
    job = await memoryd.job("extract", **to_learn(["again", "ana"]))
    assert job["state"] == "succeeded"
    assert job["attempt"] > 1
    assert len(await memoryd.items(["again", "ana"])) == 1


@DIES
async def test_a_missing_variable_ends_langmems_only_worker_and_none_of_memoryds(
    memoryd: Memoryd,
) -> None:
    with local(remembering) as opened:
        config: JSON = {"configurable": {"user": "ana"}}
        opened.executor.submit(dict(PAYLOAD), config, thread_id="ana")
        await asyncio.to_thread(opened.worker.join, 10)
        assert not opened.worker.is_alive()
        future = opened.submit("ben")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.wrap_future(future), SECONDS)

    template = {**MEMORY, "namespace": ["users", "{id}"]}
    await memoryd.job("extract", messages=TALK, manager_config=template, status=422)
    memoryd.llm.respond = lambda _: replying()
    await memoryd.extract(TALK, manager_config=template, variables={"id": "ben"})
    assert len(await memoryd.items(["users", "ben"])) == 1


@pytest.fixture
async def llm() -> AsyncIterator[LLMServer]:
    async with llm_server() as started:
        yield started


async def test_what_waits_is_in_langmems_memory_only_and_outlives_memoryd(
    database_url: str, llm: LLMServer
) -> None:
    with local(remembering) as opened:
        opened.submit(after_seconds=3600)
        assert type(opened.waiting) is queue.PriorityQueue  # nothing else knows of it
        assert await opened.texts() == []

    llm.script.append(calls(remembers(TEA)))
    async with serving(database_url, llm, worker=False) as before:
        job = await before.job("extract", wait=0, status=202, **to_learn(["outlives", "ana"]))
        assert (await before.look(job["id"]))["state"] == "queued"
    async with serving(database_url, llm) as after:
        assert (await after.ended(job["id"]))["state"] == "succeeded"
        assert len(await after.items(["outlives", "ana"])) == 1
