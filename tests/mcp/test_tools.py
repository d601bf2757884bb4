"""The tools of the MCP server."""

import asyncio
from typing import Any

import httpx2
import pytest

from app.search.service import SearchService
from app.store.writer import ItemWriter
from tests.support.app import Store
from tests.support.mcp_client import Agent, connected, text_of

pytestmark = pytest.mark.slow

ALL = [
    "search_memories",
    "remember",
    "update_memory",
    "forget_memory",
    "list_namespaces",
    "extract_memories",
]


async def test_a_memory_is_remembered_found_updated_and_forgotten(
    client: httpx2.AsyncClient, mode: str
) -> None:
    async with connected(client, mode=mode) as opened:
        agent = Agent(opened)
        memory = await agent.remember("Ann likes ramen.", importance=0.7)
        (found,) = await agent.search(query="what does Ann like to eat?")
        assert found["id"] == memory
        assert found["namespace"] == ["memories"]
        assert found["value"] == {"content": "Ann likes ramen."}
        assert found["importance"] == 0.7
        assert 0 < found["score"] <= 1
        assert await agent.call("update_memory", id=memory, text="Ann likes udon.") == {
            "id": memory
        }
        assert await agent.texts(query="udon") == ["Ann likes udon."]
        history = {"namespace": "memories", "key": memory.removeprefix("memories/")}
        response = await client.get("/v1/store/items/versions", params=history)
        sources = [version["source"] for version in response.json()["versions"]]
        assert sources == [{"tool": "update_memory"}, {"tool": "remember"}]
        assert await agent.call("forget_memory", id=memory) == {"id": memory}
        assert await agent.search() == []


async def test_what_is_known_from_elsewhere_is_not_remembered_again(
    client: httpx2.AsyncClient, store: Store
) -> None:
    extracted = {"kind": "memory", "content": {"content": "Ann lives in Bonn."}}
    known: dict[str, dict[str, Any]] = {"a": extracted, "b": {"text": "Bob has a dog."}}
    for key, value in known.items():
        await store.put(["memories"], key, value)
    async with connected(client) as opened:
        agent = Agent(opened)
        for text, key in (("ann lives  in Bonn", "a"), ("Bob has a dog!", "b")):
            again = await agent.call("remember", text=text)
            assert again["id"] == f"memories/{key}"
            assert "already remembered" in again["note"]
        other = await agent.call("remember", text="Ann lives in Berlin.")
        assert other["id"] not in ("memories/a", "memories/b")
        same = await asyncio.gather(*(agent.call("remember", text="Eve sings.") for _ in range(4)))
        assert len({one["id"] for one in same}) == 1
        words = "Ann sings in a choir each Monday at six and plays chess with Bob on Friday"
        first = await agent.call("remember", text=f"{words} night.")
        similar = await agent.call("remember", text=f"{words} evening.")
        assert similar["id"] != first["id"]
        assert f"similar memory, {first['id']}" in similar["note"]
    assert len(await store.search(["memories"], limit=100)) == 6


async def test_the_same_text_is_remembered_once(client: httpx2.AsyncClient) -> None:
    async with connected(client) as opened:
        agent = Agent(opened)
        first = await agent.call("remember", text="Ann plays chess.")
        again = await agent.call("remember", text=" Ann plays chess. ")
        assert "already remembered" in again.pop("note")
        assert first == again
        await agent.call("update_memory", id=first["id"], text="Ann plays go.")
        other = await agent.call("remember", text="Ann plays chess.")
        assert other["id"] != first["id"]
        assert sorted(await agent.texts()) == ["Ann plays chess.", "Ann plays go."]


async def test_results_have_a_budget_and_name_the_parts_left_out(
    client: httpx2.AsyncClient, store: Store
) -> None:
    for n in range(10):
        log = f"run {n}: " + "step done; " * 20_000
        value = {"content": log if n else "short", "n": [n] * 5_000}
        await store.put(["memories"], f"k{n}", value, index=False)
    async with connected(client) as opened:
        result = await opened.call_tool("search_memories", {})
        assert len(text_of(result)) < 60_000
        found = result.structured_content
        assert found is not None
        assert "shortened" in found["note"]
        assert len(found["memories"]) == 10
        contents = [memory["value"]["content"] for memory in found["memories"]]
        assert "short" in contents
        assert all("characters left out)" in text for text in contents if text != "short")


async def test_namespaces_with_long_names_have_a_budget(
    client: httpx2.AsyncClient, store: Store
) -> None:
    put = {"op": "put", "key": "k", "value": {}, "index": False}
    labels = ["x" * 128] * 8
    await store.batch(*({**put, "namespace": [f"{n:03}", *labels]} for n in range(60)))
    async with connected(client) as opened:
        listed = await Agent(opened).call("list_namespaces")
        assert 30 < len(listed["namespaces"]) < 40
        assert listed["complete"] is False
        assert "with it as prefix" in listed["note"]
        assert "note" not in await Agent(opened).call("list_namespaces", prefix=["001"])


async def test_json_text_is_accepted_for_arguments_of_other_types(
    client: httpx2.AsyncClient,
) -> None:
    async with connected(client) as opened:
        agent = Agent(opened)
        await agent.call("remember", text="Ann plays chess.", importance="0.5")
        found = await agent.search(filter='{"content": {"$contains": "chess"}}', limit="3")
        assert [memory["importance"] for memory in found] == [0.5]
        assert await agent.search(filter={"content": {"$contains": "go"}}) == []


async def test_both_protocols_are_served(client: httpx2.AsyncClient) -> None:
    for mode, version in (("auto", "2026-07-28"), ("legacy", "2025-11-25")):
        async with connected(client, mode=mode) as opened:
            assert opened.protocol_version == version
            assert opened.server_info is not None
            assert opened.server_info.name == "memoryd"
            assert "memory" in (opened.instructions or "")


async def test_tools_are_described_for_models_and_programs(client: httpx2.AsyncClient) -> None:
    async with connected(client) as opened:
        tools = {tool.name: tool for tool in (await opened.list_tools()).tools}
    assert list(tools) == ALL
    for tool in tools.values():
        assert tool.description
        assert tool.output_schema is not None
        assert "$ref" not in str(tool.input_schema) + str(tool.output_schema)
        assert tool.annotations is not None
        assert tool.annotations.open_world_hint is False
    reading = {name for name, t in tools.items() if t.annotations and t.annotations.read_only_hint}
    assert reading == {"search_memories", "list_namespaces"}
    harmless = {
        name for name, t in tools.items() if t.annotations and not t.annotations.destructive_hint
    }
    assert harmless == reading | {"remember"}


MISTAKES: list[tuple[str, dict[str, Any], str]] = [
    ("remember", {"text": " \n"}, "text: is empty; write what is meant"),
    ("remember", {"text": "a\x00b"}, "text: contains U+0000"),
    ("remember", {"text": "a", "importance": 2}, "importance: "),
    ("remember", {"text": "a", "namespace": []}, "namespace: is empty"),
    ("remember", {"text": "a", "namespace": [1]}, "namespace[0]: This is not a string"),
    ("remember", {"text": "a", "namespace": ["langgraph"]}, "reserved"),
    ("remember", {"text": 5, "tags": []}, "text: This is not a string; send one. tags: There is"),
    ("search_memories", {"filter": {"a": {"$like": 1}}}, 'unknown operator "$like"'),
    ("search_memories", {"namespace": ["a", ""]}, "namespace: label 1 is empty"),
    ("update_memory", {"id": "memories/no", "text": "a"}, 'There is no memory "memories/no"'),
    ("forget_memory", {"id": "a/%00"}, 'There is no memory "a/%00"'),
    ("forget_memory", {"id": "x" * 9999}, "There is no memory"),
    ("list_namespaces", {"prefix": "users"}, "prefix: This is not a JSON array"),
    ("extract_memories", {"text": "Ann likes ramen."}, "set MEMORYD_LLM"),
    ("x" * 9999, {}, f"There is no tool '{'x' * 100}'; there are search_memories, remember"),
]


async def test_mistakes_are_explained_to_the_model(client: httpx2.AsyncClient) -> None:
    async with connected(client) as opened:
        for tool, arguments, error in MISTAKES:
            result = await opened.call_tool(tool, arguments)
            assert result.is_error
            assert error in text_of(result)


async def test_a_fault_of_the_server_costs_one_call(
    client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a secret of the server")

    async with connected(client) as opened:
        agent = Agent(opened)
        await agent.remember("Ann likes ramen.")
        with monkeypatch.context() as broken:
            broken.setattr(SearchService, "plan", fail)
            error = await agent.refused("search_memories")
            assert error == "memoryd failed at this; its log says why. Trying again may help."
            with pytest.raises(Exception, match="memoryd failed at this; its log says why"):
                await opened.list_resources()
        assert await agent.texts() == ["Ann likes ramen."]


async def test_a_search_covers_memories_unless_it_names_a_namespace(
    client: httpx2.AsyncClient, store: Store
) -> None:
    async with connected(client) as opened:
        agent = Agent(opened)
        await agent.remember("Ann likes ramen.")
        await agent.remember("Bob likes ramen.", namespace=["users", "bob"])
        await store.put(["memories", "old"], "k", {"content": "Eve likes ramen.", "stars": 3})
        texts = {"Ann likes ramen.", "Eve likes ramen."}
        assert set(await agent.texts(query="ramen")) == texts
        assert await agent.texts(query="ramen", namespace=["users"]) == ["Bob likes ramen."]
        assert set(await agent.texts(namespace=[])) == {*texts, "Bob likes ramen."}
        (found,) = await agent.search(filter={"stars": {"$gte": 3}})
        assert (found["id"], "score" in found) == ("memories/old/k", False)
        assert len(await agent.search(limit=1)) == 1


async def test_a_search_returns_values_unchanged(client: httpx2.AsyncClient, store: Store) -> None:
    value = {"content": "ramen", "none": None, "list": [1, {"a": None}], "ja": "ラーメン"}
    await store.put(["memories"], "a/b", value)
    async with connected(client) as opened:
        (found,) = await Agent(opened).search()
    assert (found["id"], found["value"]) == ("memories/a%2Fb", value)


async def test_an_update_replaces_the_text_and_nothing_else(
    client: httpx2.AsyncClient, store: Store
) -> None:
    await store.put(["memories"], "k", {"text": "old", "none": None}, importance=0.4)
    async with connected(client) as opened:
        agent = Agent(opened)
        await agent.call("update_memory", id="memories/k", text="new")
        item = await store.get(["memories"], "k")
        assert (item["value"], item["importance"]) == ({"text": "new", "none": None}, 0.4)
        await agent.call("update_memory", id="memories/k", text="new", importance=1)
        assert (await store.get(["memories"], "k"))["importance"] == 1


async def test_an_update_of_a_memory_deleted_during_it_is_a_mistake(
    client: httpx2.AsyncClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.put(["memories"], "k", {"content": "old"})
    patch = ItemWriter.patch

    async def too_late(writer: ItemWriter, *arguments: Any) -> Any:
        await store.delete(["memories"], "k")
        return await patch(writer, *arguments)

    monkeypatch.setattr(ItemWriter, "patch", too_late)
    async with connected(client) as opened:
        error = await Agent(opened).refused("update_memory", id="memories/k", text="new")
    assert error.startswith('There is no memory "memories/k"')


async def test_namespaces_are_listed_with_their_counts(
    client: httpx2.AsyncClient, store: Store
) -> None:
    for namespace, key in ((["users", "ann"], "a"), (["users", "ann"], "b"), (["teams"], "c")):
        await store.put(namespace, key, {"content": key})
    async with connected(client) as opened:
        agent = Agent(opened)
        ann = {"namespace": ["users", "ann"], "memories": 2}
        assert await agent.call("list_namespaces") == {
            "namespaces": [{"namespace": ["teams"], "memories": 1}, ann],
            "complete": True,
        }
        listed = await agent.call("list_namespaces", prefix=["users"])
        assert listed["namespaces"] == [ann]
