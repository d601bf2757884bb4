from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import BaseModel

from tests.langmem import ours
from tests.langmem.decisions import JSON
from tests.langmem.original import create_manage_memory_tool, create_search_memory_tool
from tests.langmem.ours import Memoryd
from tests.langmem.tools import Call, Change, Create, Drop, Tools, keys

pytestmark = pytest.mark.slow

TEA = "Ana likes tea."
DOG = "Ana has a dog called Rex."


class Person(BaseModel):
    name: str
    age: int | None = None
    likes: list[str] = []


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


async def test_a_memory_has_the_shape_of_a_schema(memoryd: Memoryd) -> None:
    tools = Tools(memoryd, schema=Person)
    ana = {"name": "Ana", "age": 30, "likes": ["tea"]}
    await tools.agree(Create("ana", ana), Create("ben", {"name": "Ben", "likes": []}))
    await tools.agree(Change("ana", {**ana, "age": 31}), Drop("ben"))
    assert tools.held == {"ana": {**ana, "age": 31}}


async def test_what_does_not_fit_the_schema_is_not_stored(memoryd: Memoryd) -> None:
    tools = Tools(memoryd, schema=Person)
    for content in ({"age": 3}, {"name": 7}, "Ana", None):
        if content is not None:  # which LangMem stores
            with pytest.raises(ValueError, match="validation error"):
                await tools.manage_theirs(content=content)
        assert (await tools.manage_ours(content=content))["is_error"]
    await tools.check()


@pytest.mark.parametrize(
    "arguments",
    [
        {"content": TEA, "id": "6f7a4dd2-8f0e-4f1c-8e5f-6b7f4ed1b9f0"},
        {"content": TEA, "action": "update"},
        {"action": "delete"},
        {"content": TEA, "action": "forget"},
        {"content": 7},
    ],
    ids=["an id for a new one", "no id to update", "no id to delete", "no such action", "no text"],
)
async def test_a_call_that_makes_no_sense_does_nothing(memoryd: Memoryd, arguments: JSON) -> None:
    tools = Tools(memoryd)
    with pytest.raises(ValueError, match=r"MEMORY|validation error"):
        await tools.manage_theirs(**arguments)
    assert (await tools.manage_ours(**arguments))["is_error"]
    await tools.check()


async def test_only_what_is_permitted_is_done(memoryd: Memoryd) -> None:
    tools = Tools(memoryd, actions_permitted=("create",))
    await tools.agree(Create("tea", TEA))
    (id_,) = await memoryd.items(tools.namespace)
    for arguments in ({"content": DOG, "action": "update"}, {"action": "delete"}):
        with pytest.raises(ValueError, match="validation error"):
            await tools.manage_theirs(**arguments, id="6f7a4dd2-8f0e-4f1c-8e5f-6b7f4ed1b9f0")
        assert (await tools.manage_ours(**arguments, id=id_))["is_error"]
    await tools.check()


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


async def test_the_shape_of_memories_is_offered(memoryd: Memoryd) -> None:
    tool = create_manage_memory_tool(("memories",), schema=Person)
    their_content = defined_by_langmem(tool)["parameters"]["properties"]["content"]
    config = {"kinds": [ours.kind(Person)]}
    response = await memoryd.client.put("/v1/managers/people", json=config)
    assert response.status_code in (200, 201), response.text
    by_ours = (await defined(memoryd, manager="people"))["manage_memory"]
    our_content = by_ours["parameters"]["properties"]["content"]
    shapes = [part for part in their_content["anyOf"] if part["type"] == "object"]
    assert our_content["anyOf"][0]["properties"].keys() == shapes[0]["properties"].keys()


async def test_the_same_memories_are_found(memoryd: Memoryd) -> None:
    tools = Tools(memoryd)
    await tools.agree(Create("tea", TEA), Create("dog", DOG), Create("home", "Ben lives in Porto."))
    for query, name in (("dog called Rex", "dog"), ("Ben Porto", "home")):
        by_theirs = await tools.search_theirs(query=query, limit=1)
        by_ours = await tools.search_ours(query=query, limit=1)
        assert [tools.names[key] for key in keys(by_theirs)] == [name]
        assert [tools.names[key] for key in keys(by_ours)] == [name]
        (their_item,), (our_item,) = by_theirs, by_ours
        assert their_item.keys() == our_item.keys()
        for member in ("namespace", "value"):
            assert our_item[member] == their_item[member]


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


async def test_users_have_memories_of_their_own(memoryd: Memoryd) -> None:
    ana, ben = Tools(memoryd), Tools(memoryd)
    await ana.agree(Create("tea", TEA))
    await ben.agree(Create("dog", DOG))
    await ana.check()
    assert [item["value"] for item in await ben.search_ours(query=TEA)] == [{"content": DOG}]


@st.composite
def calls_of(draw: Any) -> list[Call]:
    """Draw calls that make sense one after the other."""
    held: set[str] = set()
    made: list[Call] = []
    texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
    for number in range(draw(st.integers(1, 8))):
        content = draw(texts.filter(str.strip))
        action = draw(st.sampled_from([Create, Change, Drop])) if held else Create
        if action is Create:
            made.append(Create(f"m{number}", content))
            held.add(f"m{number}")
            continue
        name = draw(st.sampled_from(sorted(held)))
        made.append(Change(name, content) if action is Change else Drop(name))
        held -= {name} if action is Drop else set()
    return made


@settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(calls_of())
async def test_both_end_with_the_same_memories(memoryd: Memoryd, calls: list[Call]) -> None:
    await Tools(memoryd).agree(*calls)
