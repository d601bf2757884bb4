"""Agents of LangGraph that remember in one thread what they use in another."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import httpx2
import pytest
from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolCall, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from langgraph.checkpoint.memory import InMemorySaver
from typing_extensions import override

from tests.agents.ways import WAYS, Call
from tests.support.server import Server

pytestmark = pytest.mark.slow

PEANUTS = "Ana is allergic to peanuts."
QUESTION = "What is Ana allergic to?"
ASKED_TO_KEEP = "Remember: "

_users = count(1)


class RememberingModel(BaseChatModel):
    """Keeps what it is asked to; otherwise looks up what it is asked, and says what it found."""

    remember: Call
    look_up: Call

    @property
    @override
    def _llm_type(self) -> str:
        return "scripted"

    @override
    def bind_tools(
        self, tools: Sequence[Any], *, tool_choice: str | None = None, **kwargs: Any
    ) -> Runnable[Any, AIMessage]:
        offered = {tool.name: tool.tool_call_schema for tool in tools}
        assert {self.remember.tool, self.look_up.tool} <= offered.keys()
        return self

    @override
    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._reply(messages[-1]))])

    def _reply(self, last: BaseMessage) -> AIMessage:
        text = str(last.content)
        if isinstance(last, ToolMessage):
            return AIMessage(f"My memory says: {text}")
        if text.startswith(ASKED_TO_KEEP):
            return _calling(self.remember, text.removeprefix(ASKED_TO_KEEP))
        return _calling(self.look_up, text)


def _calling(call: Call, text: str) -> AIMessage:
    wanted = ToolCall(name=call.tool, args={call.argument: text}, id="call_1")
    return AIMessage("", tool_calls=[wanted])


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
        )
        yield Agent(graph, user)


@pytest.mark.parametrize("way", WAYS)
async def test_an_agent_uses_in_one_thread_what_it_kept_in_another(
    server: Server, way: str
) -> None:
    user = f"user-{next(_users)}"
    async with agent_of(server, way, user) as agent:
        assert PEANUTS not in await agent.say(QUESTION, thread="before")
        await agent.say(f"{ASKED_TO_KEEP}{PEANUTS}", thread="first")
        assert PEANUTS in await agent.say(QUESTION, thread="second")
        assert ASKED_TO_KEEP not in await agent.thread("second")
    async with agent_of(server, way, f"{user}0") as other:
        assert PEANUTS not in await other.say(QUESTION, thread="first")
    async with httpx2.AsyncClient(base_url=f"{server.url}/v1") as client:
        body = {"namespace_prefix": ["memories", user]}
        (item,) = (await client.post("/store/items/search", json=body)).json()["items"]
    # The same in every way, so each finds what was kept in another.
    assert (item["namespace"], item["value"]) == (["memories", user], {"content": PEANUTS})
