"""What goes wrong in LangMem's tools for agents, and what memoryd does in its place."""

import json

import pytest
from langchain_core.messages import ToolCall
from pydantic import BaseModel

from tests.langmem import theirs
from tests.langmem.decisions import JSON
from tests.langmem.original import (
    ConfigurationError,
    InMemoryStore,
    create_manage_memory_tool,
    create_search_memory_tool,
)
from tests.langmem.ours import Memoryd
from tests.langmem.tools import Create, Tools
from tests.support.load import at_once

pytestmark = pytest.mark.slow

TEA = "Ana likes tea."
UNKNOWN = "6f7a4dd2-8f0e-4f1c-8e5f-6b7f4ed1b9f0"


class Person(BaseModel):
    name: str
    age: int | None = None


async def values(memoryd: Memoryd, tools: Tools) -> tuple[list[JSON], list[JSON]]:
    """Return what is stored by LangMem's tools, and by memoryd's."""
    in_theirs = await theirs.items(tools.store, tools.namespace)
    in_ours = await memoryd.items(tools.namespace)
    return list(in_theirs.values()), list(in_ours.values())


async def test_an_update_of_what_is_not_there_creates_it_in_langmem_and_is_an_error_in_memoryd(
    memoryd: Memoryd,
) -> None:
    tools = Tools(memoryd)
    call: JSON = {"content": TEA, "action": "update", "id": UNKNOWN}
    assert await tools.manage_theirs(**call) == f"updated memory {UNKNOWN}"
    answer = await tools.manage_ours(**call)
    assert answer["is_error"]
    assert UNKNOWN in answer["content"]
    assert await values(memoryd, tools) == ([{"content": TEA}], [])


async def test_deleting_what_is_not_there_is_a_success_of_langmem_and_an_error_of_memoryd(
    memoryd: Memoryd,
) -> None:
    tools = Tools(memoryd)
    call: JSON = {"action": "delete", "id": UNKNOWN}
    assert await tools.manage_theirs(**call) == f"Deleted memory {UNKNOWN}"
    answer = await tools.manage_ours(**call)
    assert answer["is_error"]
    assert UNKNOWN in answer["content"]


async def test_a_memory_without_content_is_stored_by_langmem_and_refused_by_memoryd(
    memoryd: Memoryd,
) -> None:
    tools = Tools(memoryd)
    assert (await tools.manage_theirs()).startswith("created memory")
    assert (await tools.manage_ours())["is_error"]
    assert await values(memoryd, tools) == ([{"content": None}], [])


async def test_an_update_without_content_erases_it_in_langmem_and_not_in_memoryd(
    memoryd: Memoryd,
) -> None:
    tools = Tools(memoryd)
    await tools.agree(Create("tea", TEA))
    their_id, our_id = tools.names
    await tools.manage_theirs(action="update", id=their_id)
    assert (await tools.manage_ours(action="update", id=our_id))["is_error"]
    assert await values(memoryd, tools) == ([{"content": None}], [{"content": TEA}])


async def test_memories_with_keys_of_ones_own_cannot_be_edited_by_langmem_and_can_by_memoryd(
    memoryd: Memoryd,
) -> None:
    tools = Tools(memoryd)
    value = {"content": TEA}
    await tools.store.aput(tuple(tools.namespace), "favourite drink", value)
    await memoryd.store.put(tools.namespace, "favourite drink", value)
    call: JSON = {"content": "Ana likes ska.", "action": "update", "id": "favourite drink"}
    with pytest.raises(ValueError, match="valid UUID"):
        await tools.manage_theirs(**call)
    answer = await tools.manage_ours(**call)
    assert answer["content"] == "updated memory favourite drink"
    assert await values(memoryd, tools) == ([value], [{"content": "Ana likes ska."}])


async def test_arguments_as_openai_sends_them_are_the_memory_in_langmem_and_are_read_by_memoryd(
    memoryd: Memoryd,
) -> None:
    tools = Tools(memoryd)
    arguments = json.dumps({"action": "create", "content": TEA})
    tool = create_manage_memory_tool(tuple(tools.namespace), store=tools.store)
    await tool.ainvoke(arguments)  # as LangMem's guide for OpenAI does
    await tools.call_ours("manage_memory", arguments)
    assert await values(memoryd, tools) == ([{"content": arguments}], [{"content": TEA}])


async def test_members_beyond_the_schema_are_dropped_silently_by_langmem_and_kept_by_memoryd(
    memoryd: Memoryd,
) -> None:
    tools = Tools(memoryd, schema=Person)
    content = {"name": "Ana", "shoe_size": 38}
    await tools.manage_theirs(content=content)
    await tools.manage_ours(content=content)
    by_theirs, by_ours = await values(memoryd, tools)
    assert by_theirs == [{"content": {"name": "Ana", "age": None}}]
    assert by_ours == [{"kind": "Person", "content": content}]


async def test_updates_at_once_are_kept_apart_by_memoryds_history_and_lost_by_langmem(
    memoryd: Memoryd,
) -> None:
    tools = Tools(memoryd)
    await tools.agree(Create("tea", TEA))
    their_id, our_id = tools.names
    texts = [f"Ana likes tea number {number}." for number in range(4)]

    async def update(number: int) -> None:
        await tools.manage_theirs(content=texts[number], action="update", id=their_id)
        answer = await tools.manage_ours(content=texts[number], action="update", id=our_id)
        assert not answer["is_error"], answer

    await at_once(4, update)
    (their_value,), _ = await values(memoryd, tools)
    assert their_value["content"] in texts  # and there is no trace of the others
    versions = await memoryd.store.versions(tools.namespace, our_id)
    assert {version["value"]["content"] for version in versions} == {TEA, *texts}


async def test_users_share_what_langmem_takes_literally_and_have_their_own_in_memoryd(
    memoryd: Memoryd,
) -> None:
    store, template = InMemoryStore(), ("user-{id}",)
    tool = create_manage_memory_tool(template, store=store)
    search = create_search_memory_tool(template, store=store)
    await tool.ainvoke({"content": TEA}, {"configurable": {"id": "ana"}})
    found = json.loads(await search.ainvoke({"query": "tea"}, {"configurable": {"id": "ben"}}))
    assert [item["value"] for item in found] == [{"content": TEA}]

    tools = Tools(memoryd)
    for user in ("ana", "ben"):
        binding: JSON = {"namespace": ["user-{id}"], "variables": {"id": user}}
        if user == "ana":
            await tools.call_ours("manage_memory", {"content": TEA}, **binding)
        found = (await tools.call_ours("search_memory", {"query": "tea"}, **binding))["artifact"]
        assert [item["value"] for item in found] == ([{"content": TEA}] if user == "ana" else [])


async def test_a_missing_variable_is_no_exception_in_langmem_and_a_problem_in_memoryd(
    memoryd: Memoryd,
) -> None:
    tool = create_manage_memory_tool(("memories", "{user_id}"), store=InMemoryStore())
    with pytest.raises(ConfigurationError):
        await tool.ainvoke({"content": TEA}, {"configurable": {}})
    assert not issubclass(ConfigurationError, Exception)  # no ordinary handler catches it

    body: JSON = {"arguments": {"content": TEA}, "namespace": ["memories", "{user_id}"]}
    response = await memoryd.client.post("/v1/tools/manage_memory", json=body)
    assert (response.status_code, response.json()["code"]) == (422, "missing_variable")


@pytest.mark.parametrize(
    "filter_", [{"content": {"$near": 1}}, {"content": {"$gt": {}}}], ids=["operator", "operand"]
)
async def test_a_filter_that_makes_no_sense_is_an_exception_of_langmem_and_an_answer_of_memoryd(
    memoryd: Memoryd, filter_: JSON
) -> None:
    tools = Tools(memoryd)
    await tools.agree(Create("tea", TEA))
    with pytest.raises((ValueError, TypeError)):
        await tools.search_theirs(query="tea", filter=filter_)
    answer = await tools.call_ours("search_memory", {"query": "tea", "filter": filter_})
    assert answer["is_error"]


async def test_a_negative_limit_finds_nothing_in_langmem_and_is_told_to_the_model_by_memoryd(
    memoryd: Memoryd,
) -> None:
    tools = Tools(memoryd)
    await tools.agree(Create("tea", TEA))
    assert await tools.search_theirs(query="tea", limit=-1) == []
    answer = await tools.call_ours("search_memory", {"query": "tea", "limit": -1})
    assert answer["is_error"]
    assert "limit" in answer["content"]


async def test_a_bad_call_ends_langmems_agent_and_is_an_answer_of_memoryd(
    memoryd: Memoryd,
) -> None:
    tools = Tools(memoryd)
    tool = create_manage_memory_tool(tuple(tools.namespace), store=tools.store)
    bad = ToolCall(name="manage_memory", args={"content": TEA, "id": "1"}, id="1", type="tool_call")
    with pytest.raises(ValueError, match="valid UUID"):
        await tool.ainvoke(bad)
    answer = await tools.manage_ours(content=TEA, id="1")
    assert answer["is_error"]
    assert "id" in answer["content"]
