"""Agents of LangGraph that remember in one thread what they use in another."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import httpx2
import pytest
from langchain.agents import create_agent
from langgraph.checkpoint.memory import InMemorySaver

from tests.agents.model import ASKED_TO_KEEP, RememberingModel
from tests.agents.ways import WAYS
from tests.support.server import Server

pytestmark = pytest.mark.slow

PEANUTS = "Ana is allergic to peanuts."
QUESTION = "What is Ana allergic to?"

_users = count(1)


class Agent:
    """An agent of one user, who talks with it in several threads."""

    def __init__(self, graph: Any, user: str) -> None:
        self.user = user
        self._graph = graph

    async def say(self, text: str, thread: str) -> str:
        """Return the agent's answer."""
        said = {"messages": [{"role": "user", "content": text}]}
        state = await self._graph.ainvoke(said, self._config(thread))
        return str(state["messages"][-1].content)

    async def thread(self, thread: str) -> str:
        """Return all that was said in a thread, the calls of tools included."""
        state = await self._graph.aget_state(self._config(thread))
        return "\n".join(str(message) for message in state.values["messages"])

    def _config(self, thread: str) -> Any:
        return {"configurable": {"thread_id": thread, "user_id": self.user}}


@asynccontextmanager
async def agent_of(server: Server, way: str, user: str) -> AsyncIterator[Agent]:
    """Yield an agent that gets at its memory in one of the ways."""
    async with WAYS[way](server.url, user) as given:
        graph: Any = create_agent(
            RememberingModel(remember=given.remember, look_up=given.look_up),
            list(given.tools),
            checkpointer=InMemorySaver(),
            store=given.store,
        )
        yield Agent(graph, user)


@pytest.fixture
def user() -> str:
    return f"user-{next(_users)}"


@pytest.fixture
def memories(server: Server) -> Iterator[Any]:
    """Return what the store has of a user, as texts."""
    with httpx2.Client(base_url=f"{server.url}/v1") as client:

        def texts(user: str) -> list[str]:
            body = {"namespace_prefix": ["memories", user]}
            found = client.post("/store/items/search", json=body).json()["items"]
            return [item["value"]["content"] for item in found]

        yield texts


@pytest.mark.parametrize("way", WAYS)
async def test_an_agent_uses_in_one_thread_what_it_kept_in_another(
    server: Server, memories: Any, user: str, way: str
) -> None:
    async with agent_of(server, way, user) as agent:
        assert PEANUTS not in await agent.say(QUESTION, thread="before")
        await agent.say(f"{ASKED_TO_KEEP}{PEANUTS}", thread="first")
        assert PEANUTS in await agent.say(QUESTION, thread="second")
        assert ASKED_TO_KEEP not in await agent.thread("second")
    async with agent_of(server, way, f"{user}0") as other:
        assert PEANUTS not in await other.say(QUESTION, thread="first")
    assert memories(user) == [PEANUTS]


@pytest.mark.parametrize("way", WAYS)
async def test_later_agents_find_in_every_way_what_was_kept_in_one(
    server: Server, user: str, way: str
) -> None:
    async with agent_of(server, way, user) as agent:
        await agent.say(f"{ASKED_TO_KEEP}{PEANUTS}", thread="first")
    for another in WAYS:
        async with agent_of(server, another, user) as agent:
            assert PEANUTS in await agent.say(QUESTION, thread="second")
