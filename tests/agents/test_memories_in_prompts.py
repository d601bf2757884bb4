"""Agents of LangGraph that find in their prompt what jobs have extracted."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ModelRequest, dynamic_prompt
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_config
from langgraph_memoryd import MemorydStore
from typing_extensions import override

from tests.support.llm_server import LLMServer, calls
from tests.support.server import Server, serving

pytestmark = pytest.mark.slow

PEANUTS = "Ana is allergic to peanuts."
QUESTION = "What is Ana allergic to?"


class RepeatingModel(BaseChatModel):
    """Says what its system prompt says."""

    @property
    @override
    def _llm_type(self) -> str:
        return "scripted"

    @override
    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> ChatResult:
        reply = AIMessage(f"I was told: {messages[0].content}")
        return ChatResult(generations=[ChatGeneration(message=reply)])


@dynamic_prompt
def knowing(request: ModelRequest[None]) -> str:
    """Put what the store has to say to the last message into the prompt."""
    namespace = ("memories", get_config()["configurable"]["user_id"])
    assert request.runtime.store is not None
    found = request.runtime.store.search(namespace, query=str(request.messages[-1].content))
    return f"You are a helpful assistant. You know: {[item.value for item in found]}"


def said(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


def in_thread(thread: str, user: str) -> Any:
    return {"configurable": {"thread_id": thread, "user_id": user}}


@pytest.fixture
async def extraction_server(
    database_url: str, llm: LLMServer, tmp_path: Path
) -> AsyncIterator[Server]:
    """A server whose jobs ask the scripted model."""
    environment = {
        "MEMORYD_DATABASE_URL": database_url,
        "MEMORYD_EMBEDDING": "fake:hashed",
        "MEMORYD_LLM": "openai:scripted",
        "OPENAI_API_KEY": "sk-test",
        "OPENAI_BASE_URL": llm.base_url_openai,
    }
    with serving(tmp_path / "log", environment=environment, worker=True) as server:
        yield server


async def test_an_agent_knows_in_its_next_thread_what_a_job_extracted(
    extraction_server: Server, llm: LLMServer
) -> None:
    memory = {"content": {"content": PEANUTS}, "importance": 0.9, "message_ids": ["1"]}
    llm.respond = lambda _: calls(("insert_memory", memory))

    def talk() -> None:
        with (
            httpx2.Client(base_url=f"{extraction_server.url}/v1", timeout=60) as client,
            MemorydStore(extraction_server.url) as store,
        ):
            manager = {"namespace": ["memories", "{user_id}"]}
            assert client.put("/managers/learner", json=manager).is_success
            agent: Any = create_agent(
                RepeatingModel(), middleware=[knowing], store=store, checkpointer=InMemorySaver()
            )
            state = agent.invoke(said("I am Ana. Peanuts make me ill."), in_thread("1", "ana"))
            messages = [{"role": m.type, "content": m.content} for m in state["messages"]]
            said_of = {"manager": "learner", "variables": {"user_id": "ana"}, "messages": messages}
            assert client.post("/threads/1/messages", json=said_of).is_success
            job = client.post("/threads/1/flush", headers={"Prefer": "wait=30"}).json()["job"]
            assert job["state"] == "succeeded", job
            state = agent.invoke(said(QUESTION), in_thread("2", "ana"))
            assert PEANUTS in state["messages"][-1].content

    await asyncio.to_thread(talk)
