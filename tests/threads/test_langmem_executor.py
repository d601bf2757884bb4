"""LangMem's own executor, unmodified, with memoryd in the place of LangGraph's platform."""

import asyncio
import time
import warnings
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol, cast

import httpx2
import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph_sdk.errors import NotFoundError

from tests.support.databases import Cluster
from tests.support.jobs import until
from tests.support.llm_server import LLMServer, llm_server
from tests.support.server import Server, serving
from tests.threads.processes import environment_of
from tests.threads.remembering import learned_from, remembering

with warnings.catch_warnings(action="ignore"):  # LangMem imports what LangGraph calls outdated
    from langmem import ReflectionExecutor  # type: ignore[import-untyped]

pytestmark = pytest.mark.slow

CONFIG: dict[str, Any] = {"configurable": {"thread_id": "chat"}}


class Executor(Protocol):
    """What is used of LangMem's executor."""

    def submit(self, payload: dict[str, Any], /, **more: Any) -> "Future[None]": ...

    def search(self, query: str | None = None, **more: Any) -> list[dict[str, Any]]: ...


@pytest.fixture(scope="module")
async def llm() -> AsyncIterator[LLMServer]:
    async with llm_server() as started:
        yield started


@pytest.fixture(scope="module")
def memoryd(
    cluster: Cluster, llm: LLMServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server with a worker, and a manager called `manager`."""
    log: Path = tmp_path_factory.mktemp("server") / "log"
    with (
        cluster.database() as url,
        serving(log, environment=environment_of(url, llm), worker=True) as server,
    ):
        config = {"namespace": ["memories", "{langgraph_user_id}"]}
        stored = httpx2.put(f"{server.url}/v1/managers/manager", json=config)
        assert stored.status_code == 201, stored.text
        yield server


@pytest.fixture(autouse=True)
def remembers(llm: LLMServer) -> LLMServer:
    """Forget what earlier tests asked."""
    llm.respond = remembering()
    llm.requests.clear()
    return llm


@asynccontextmanager
async def executor_of(
    server: Server, user: str, manager: str = "manager"
) -> AsyncIterator[Executor]:
    executor = ReflectionExecutor(manager, ("memories", user), url=f"{server.url}/v1")
    yield cast(Executor, executor)
    executor.shutdown()
    clients = vars(executor)  # LangMem never closes them
    clients["_client"].close()
    await clients["_aclient"].aclose()


async def found(executor: Executor, query: str, seconds: float = 15) -> list[str]:
    """Return the contents that LangMem finds, once there are any."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        items = await asyncio.to_thread(executor.search, query)
        if items:
            return [item["value"]["content"]["content"] for item in items]
        await asyncio.sleep(0.05)
    return []


async def submit(executor: Executor, messages: list[Any], **more: Any) -> None:
    future = executor.submit({"messages": messages}, **more)
    await asyncio.wrap_future(future)


async def asked(llm: LLMServer, times: int) -> list[list[str]]:
    """Return the messages that each request said to learn from, once there are so many."""
    await until(lambda: asyncio.sleep(0, len(llm.requests) >= times))
    return [learned_from(request) for request in llm.requests]


@pytest.mark.parametrize("thread", [{"thread_id": "simple"}, {"thread_id": None}, {}])
async def test_a_memory_is_extracted_and_found(
    memoryd: Server, llm: LLMServer, thread: dict[str, Any]
) -> None:
    user = f"user of {thread.get('thread_id', 'nothing')}"
    config = CONFIG if "simple" in user else {"configurable": {"other": 1}}
    async with executor_of(memoryd, user) as executor:
        await submit(executor, [HumanMessage("I like tea")], config=config, **thread)
        assert await found(executor, "tea") == ["I like tea #1"]
        items = await asyncio.to_thread(executor.search)
    assert items[0]["namespace"] == ("memories", user)
    assert items[0]["value"]["kind"] == "memory"
    assert len(llm.requests) == 1


async def test_several_submits_lead_to_one_extraction(memoryd: Server, llm: LLMServer) -> None:
    conversation: list[Any] = []
    async with executor_of(memoryd, "debounced") as executor:
        for n in range(3):
            conversation += [HumanMessage(f"question {n}"), AIMessage(f"answer {n}", id=f"r{n}")]
            await submit(executor, conversation, config=CONFIG, after_seconds=1, thread_id="deb")
        texts = [message.content for message in conversation]
        assert await asked(llm, 1) == [texts]
        contents = await found(executor, "question")
        assert sorted(contents) == sorted(f"{text} #1" for text in texts)
        conversation.append(HumanMessage("one more"))
        await submit(executor, conversation, config=CONFIG, thread_id="deb")
        assert await asked(llm, 2) == [texts, ["one more"]]


async def test_an_unknown_manager_fails_the_submission(memoryd: Server) -> None:
    async with executor_of(memoryd, "x", manager="nobody") as executor:
        with pytest.raises(NotFoundError, match='no manager "nobody"'):
            await submit(executor, [HumanMessage("hi")], config=CONFIG, thread_id="x")
