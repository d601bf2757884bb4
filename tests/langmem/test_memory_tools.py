"""LangMem's tools for agents and memoryd's, given the same calls."""

import json
from typing import Any

import pytest
from langchain_core.utils.function_calling import convert_to_openai_tool

from tests.langmem import theirs
from tests.langmem.decisions import JSON
from tests.langmem.original import create_manage_memory_tool, create_search_memory_tool
from tests.langmem.ours import Memoryd

pytestmark = pytest.mark.slow

TEMPLATE = ["memories", "{user_id}"]


class Tools:
    """An agent's tools over a store of LangMem's and one of memoryd's."""

    def __init__(self, memoryd: Memoryd, user: str) -> None:
        self.memoryd = memoryd
        self.variables = {"user_id": user}
        namespace, store = tuple(TEMPLATE), theirs.store()
        self._theirs = {
            "manage_memory": create_manage_memory_tool(namespace, store=store),
            "search_memory": create_search_memory_tool(namespace, store=store),
        }

    async def call(self, name: str, arguments: JSON, id_: tuple[str, str] | None = None) -> Any:
        """Call LangMem's tool and memoryd's; return the texts for the model."""
        by_id = [{"id": side} for side in id_] if id_ else [{}, {}]
        by_theirs = await self._theirs[name].ainvoke(
            {**arguments, **by_id[0]}, {"configurable": self.variables}
        )
        body = {"namespace": TEMPLATE, "variables": self.variables}
        response = await self.memoryd.client.post(
            f"/v1/tools/{name}", json={"arguments": {**arguments, **by_id[1]}, **body}
        )
        assert response.status_code == 200, response.text
        assert not response.json()["is_error"], response.text
        return by_theirs, response.json()["content"]

    async def manage(self, id_: tuple[str, str] | None = None, **arguments: str) -> Any:
        """Check that both confirm a change in the same words; return the memory's ids."""
        answers = await self.call("manage_memory", arguments, id_)
        ids = tuple(answer.split()[-1] for answer in answers)
        assert answers[0].replace(ids[0], ids[1]) == answers[1]
        return ids

    async def search(self, **arguments: Any) -> list[list[str]]:
        """Return the contents that each finds."""
        answers = await self.call("search_memory", arguments)
        return [[item["value"]["content"] for item in json.loads(answer)] for answer in answers]


async def test_a_memory_is_created_updated_and_deleted(memoryd: Memoryd) -> None:
    tools = Tools(memoryd, "manages")
    tea = await tools.manage(content="Ana likes tea.")
    dog = await tools.manage(content="Ana has a dog called Rex.")
    await tools.manage(tea, content="Ana likes green tea.", action="update")
    await tools.manage(dog, action="delete")
    assert await tools.search(query="Ana") == [["Ana likes green tea."]] * 2


async def test_a_search_is_filtered_and_paged(memoryd: Memoryd) -> None:
    tools = Tools(memoryd, "searches")
    texts = [f"Ana has said number {n}." for n in range(5)]
    for text in texts:
        await tools.manage(content=text)
    only = {"content": texts[3]}
    assert await tools.search(query="number", filter=only) == [[texts[3]]] * 2
    pages = [await tools.search(query="number", limit=2, offset=offset) for offset in (0, 2, 4)]
    for side in (0, 1):
        assert [len(page[side]) for page in pages] == [2, 2, 1]
        assert sorted(text for page in pages for text in page[side]) == texts


async def parameters(memoryd: Memoryd, tool: Any, **query: str) -> tuple[JSON, JSON]:
    """Return the parameters of a tool of LangMem's and of memoryd's."""
    function = convert_to_openai_tool(tool)["function"]
    query = {"format": "openai", "names": function["name"], **query}
    response = await memoryd.client.get("/v1/tools", params=query)
    (defined,) = response.json()["tools"]
    return function["parameters"], defined["function"]["parameters"]


@pytest.mark.parametrize("actions", [("create", "update", "delete"), ("update", "delete")])
async def test_managing_is_offered_with_the_same_arguments(
    memoryd: Memoryd, actions: tuple[str, ...]
) -> None:
    tool = create_manage_memory_tool(("memories",), actions_permitted=actions)
    permitted = ",".join(actions)
    by_theirs, by_ours = await parameters(memoryd, tool, actions_permitted=permitted)
    assert by_ours["properties"].keys() == by_theirs["properties"].keys()
    action, same = by_theirs["properties"]["action"], by_ours["properties"]["action"]
    assert (same["enum"], same["default"]) == (action["enum"], action["default"])


async def test_searching_is_offered_with_the_same_arguments(memoryd: Memoryd) -> None:
    tool = create_search_memory_tool(("memories",))
    by_theirs, by_ours = await parameters(memoryd, tool)
    assert by_ours["properties"].keys() == by_theirs["properties"].keys()
    assert by_ours["required"] == by_theirs["required"] == ["query"]
    for name in ("limit", "offset"):
        assert by_ours["properties"][name]["default"] == by_theirs["properties"][name]["default"]
