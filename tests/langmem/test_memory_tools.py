from typing import Any

import pytest
from langchain_core.utils.function_calling import convert_to_openai_tool

from tests.langmem.decisions import JSON
from tests.langmem.original import create_manage_memory_tool, create_search_memory_tool
from tests.langmem.ours import Memoryd
from tests.langmem.tool_parity import Change, Create, Drop, Tools, keys

pytestmark = pytest.mark.slow

TEA = "Ana likes tea."
DOG = "Ana has a dog called Rex."


async def defined(memoryd: Memoryd, **query: str) -> dict[str, JSON]:
    """Return memoryd's definitions in OpenAI's form by the tools' names."""
    response = await memoryd.client.get("/v1/tools", params={"format": "openai", **query})
    assert response.status_code == 200, response.text
    return {tool["function"]["name"]: tool["function"] for tool in response.json()["tools"]}


def defined_by_langmem(tool: Any) -> JSON:
    function: JSON = convert_to_openai_tool(tool)["function"]
    return function


async def test_a_memory_is_created_updated_and_deleted(memoryd: Memoryd) -> None:
    tools = Tools(memoryd)
    await tools.agree(Create("tea", TEA), Create("dog", DOG))
    await tools.agree(Change("tea", "Ana likes green tea."))
    await tools.agree(Drop("dog"))
    assert tools.held == {"tea": "Ana likes green tea."}


@pytest.mark.parametrize(
    "actions", [("create", "update", "delete"), ("create",), ("update", "delete"), ("delete",)]
)
async def test_managing_is_offered_with_the_same_arguments(
    memoryd: Memoryd, actions: tuple[str, ...]
) -> None:
    tool = create_manage_memory_tool(("memories",), actions_permitted=actions)
    by_theirs = defined_by_langmem(tool)["parameters"]["properties"]
    by_ours = (await defined(memoryd, actions_permitted=",".join(actions)))["manage_memory"]
    properties = by_ours["parameters"]["properties"]
    assert properties.keys() == by_theirs.keys()
    action = by_theirs["action"]
    assert (
        properties["action"]["enum"] == list(actions) == action.get("enum", [action.get("const")])
    )
    assert properties["action"]["default"] == action["default"]


async def test_searching_is_offered_with_the_same_arguments(memoryd: Memoryd) -> None:
    by_theirs = defined_by_langmem(create_search_memory_tool(("memories",)))["parameters"]
    by_ours = (await defined(memoryd))["search_memory"]["parameters"]
    assert by_ours["properties"].keys() == by_theirs["properties"].keys()
    assert by_ours["required"] == by_theirs["required"] == ["query"]
    for name in ("limit", "offset"):
        assert by_ours["properties"][name]["default"] == by_theirs["properties"][name]["default"]


async def test_a_search_is_filtered_and_paged(memoryd: Memoryd) -> None:
    tools = Tools(memoryd)
    await tools.agree(*(Create(f"m{n}", f"Ana has said number {n}.") for n in range(5)))
    only = {"content": "Ana has said number 3."}
    for search in (tools.search_theirs, tools.search_ours):
        filtered = await search(query="number", filter=only)
        assert [tools.names[key] for key in keys(filtered)] == ["m3"]
        pages = [await search(query="number", limit=2, offset=offset) for offset in (0, 2, 4, 6)]
        assert [len(page) for page in pages] == [2, 2, 1, 0]
        assert {tools.names[key] for page in pages for key in keys(page)} == tools.held.keys()
