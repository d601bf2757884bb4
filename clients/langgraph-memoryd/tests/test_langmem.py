"""LangMem and LangChain's agents on memoryd, unchanged, with scripted models."""

import os
import warnings
from pathlib import Path
from typing import Any

import langchain.agents
import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langgraph_memoryd import MemorydStore
from pydantic import BaseModel

from tests.langmem.original import (
    Asked,
    ChatModel,
    calling,
    create_manage_memory_tool,
    create_memory_store_manager,
    in_turn,
)
from tests.support.server import Server

with warnings.catch_warnings(action="ignore"):  # it imports what LangGraph calls deprecated
    from langmem import create_search_memory_tool  # type: ignore[import-untyped]

README = Path(__file__).parent.parent / "README.md"

pytestmark = pytest.mark.slow

os.environ["LANGSMITH_TRACING"] = "false"  # nothing is sent anywhere

SAID = {"messages": [{"role": "user", "content": "I drink green tea, and live in Lisbon now."}]}


class Profile(BaseModel):
    """Content of a profile."""

    city: str
    drinks: list[str] = []


@pytest.fixture
def config(root: str) -> Any:
    """The namespace of a user whose id is an address, with dots in it."""
    return {"configurable": {"langgraph_user_id": f"{root}@example.com"}}


@pytest.fixture
def namespace(config: Any) -> tuple[str, ...]:
    return ("memories", config["configurable"]["langgraph_user_id"])


def profile(namespace_of: ChatModel, store: MemorydStore) -> Any:
    return create_memory_store_manager(
        namespace_of, schemas=[Profile], enable_inserts=False, store=store
    )


def respond(asked: Asked) -> AIMessage:
    """Create the profile, or move it to Lisbon."""
    if "<instance id=" not in asked.text:
        return calling(("Profile", {"city": "Porto", "drinks": ["coffee"]}))
    id_ = asked.text.partition("<instance id=")[2].partition(" ")[0]
    edits = [
        {"op": "replace", "path": "/city", "value": "Lisbon"},
        {"op": "add", "path": "/drinks/-", "value": "green tea"},
    ]
    call = {"json_doc_id": id_, "planned_edits": "-", "patches": edits}
    return calling(("PatchDoc", call))


@pytest.mark.parametrize("blocking", [True, False])
async def test_a_store_manager_keeps_a_profile(
    store: MemorydStore, config: Any, namespace: tuple[str, ...], blocking: bool
) -> None:
    manager = profile(ChatModel(respond=respond), store)
    for _ in range(2):
        _ = manager.invoke(SAID, config) if blocking else await manager.ainvoke(SAID, config)
    (item,) = store.search(namespace)
    assert item.value == {
        "kind": "Profile",
        "content": {"city": "Lisbon", "drinks": ["coffee", "green tea"]},
    }
    assert item.updated_at > item.created_at


def test_the_readmes_example_runs(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    code = README.read_text().partition("```python\n")[2].partition("```")[0]
    remembers = calling(("manage_memory", {"content": "Is a vegetarian."}))
    model = ChatModel(respond=in_turn(remembers, AIMessage("I shall.")))
    create = langchain.agents.create_agent
    monkeypatch.setattr(
        langchain.agents, "create_agent", lambda _, tools, store: create(model, tools, store=store)
    )
    names: dict[str, Any] = {}
    exec(code.replace("http://localhost:8080", server.url), names)  # noqa: S102  # our own
    with names["store"] as store:
        (item,) = store.search(("memories", "ann@example.com"))
    assert item.value == {"content": "Is a vegetarian."}


@pytest.mark.parametrize("blocking", [True, False])
async def test_tools_create_update_find_and_delete(
    store: MemorydStore, config: Any, namespace: tuple[str, ...], blocking: bool
) -> None:
    place = ("memories", "{langgraph_user_id}")
    manage = create_manage_memory_tool(place, store=store)
    search = create_search_memory_tool(place, store=store)

    async def call(tool: Any, **arguments: Any) -> str:
        if blocking:
            return str(tool.invoke(arguments, config))
        return str(await tool.ainvoke(arguments, config))

    created = await call(manage, content="Drinks green tea.")
    id_ = created.removeprefix("created memory ")
    assert [(item.key, item.value) for item in store.search(namespace)] == [
        (id_, {"content": "Drinks green tea."})
    ]
    await call(manage, action="update", id=id_, content="Drinks black tea.")
    assert "Drinks black tea." in await call(search, query="what to drink")
    await call(manage, action="delete", id=id_)
    assert store.get(namespace, id_) is None


@pytest.mark.parametrize("blocking", [True, False])
async def test_an_agent_remembers_between_conversations(
    store: MemorydStore, config: Any, namespace: tuple[str, ...], blocking: bool
) -> None:
    place = ("memories", "{langgraph_user_id}")
    tools = [create_manage_memory_tool(place), create_search_memory_tool(place)]
    model = ChatModel(
        respond=in_turn(
            calling(("manage_memory", {"content": "Drinks green tea."})),
            AIMessage("Noted."),
            calling(("search_memory", {"query": "drinks"})),
            AIMessage("You drink green tea."),
        )
    )
    agent = create_agent(model, tools, store=store)

    async def say(text: str) -> str:
        state: Any = {"messages": [{"role": "user", "content": text}]}
        found = agent.invoke(state, config) if blocking else await agent.ainvoke(state, config)
        return str(found["messages"][-1].content)

    assert await say("I drink green tea.") == "Noted."
    assert [item.value for item in store.search(namespace)] == [{"content": "Drinks green tea."}]
    assert await say("What do I drink?") == "You drink green tea."
    assert "Drinks green tea." in model.asked[-1].text
