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


async def test_what_is_remembered_is_found_changed_and_forgotten(
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


async def test_the_protocols_are_those_meant(client: httpx2.AsyncClient) -> None:
    async with connected(client) as newest, connected(client, mode="legacy") as before:
        assert newest.protocol_version == "2026-07-28"
        assert before.protocol_version == "2025-11-25"
        for opened in (newest, before):
            assert opened.server_info is not None
            assert opened.server_info.name == "memoryd"
            assert "memory" in (opened.instructions or "")


async def test_tools_are_described_for_models_and_programs(
    client: httpx2.AsyncClient, mode: str
) -> None:
    async with connected(client, mode=mode) as opened:
        tools = {tool.name: tool for tool in (await opened.list_tools()).tools}
    assert list(tools) == ALL
    assert tools["remember"].input_schema["required"] == ["text"]
    assert set(tools["remember"].input_schema["properties"]) == {"text", "namespace", "importance"}
    assert tools["search_memories"].input_schema["properties"]["limit"]["type"] == "integer"
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


MISTAKES = [
    ("remember", {}, "text: The field is missing; add it."),
    ("remember", {"text": 5}, "text: This is not a string; send one."),
    ("remember", {"text": " \n"}, "text: is empty; write what is meant"),
    ("remember", {"text": "a\x00b"}, "text: contains U+0000"),
    ("remember", {"text": "a", "importance": 2}, "importance: "),
    ("remember", {"text": "a", "namespace": "users"}, "namespace: This is not a JSON array"),
    ("remember", {"text": "a", "namespace": []}, "namespace: is empty"),
    ("remember", {"text": "a", "namespace": [1]}, "namespace[0]: This is not a string"),
    ("remember", {"text": "a", "namespace": ["langgraph"]}, "reserved"),
    ("remember", {"text": "a", "tags": []}, "tags: There is no such field"),
    ("remember", {"text": 5, "tags": []}, "text: This is not a string; send one. tags: There is"),
    ("search_memories", {"limit": 0}, "limit: "),
    ("search_memories", {"limit": "5"}, "limit: is not a number"),
    ("search_memories", {"filter": {"a": {"$like": 1}}}, 'unknown operator "$like"'),
    ("search_memories", {"namespace": ["a", ""]}, "namespace: label 1 is empty"),
    ("update_memory", {"id": "memories/no", "text": "a"}, 'There is no memory "memories/no"'),
    ("forget_memory", {"id": "memories/no"}, 'There is no memory "memories/no"'),
    ("forget_memory", {"id": ""}, 'There is no memory ""'),
    ("forget_memory", {"id": "//"}, 'There is no memory "//"'),
    ("forget_memory", {"id": "a/%00"}, 'There is no memory "a/%00"'),
    ("forget_memory", {"id": "x" * 9999}, "There is no memory"),
    ("list_namespaces", {"prefix": "users"}, "prefix: This is not a JSON array"),
    ("extract_memories", {"text": "Ann likes ramen."}, "set MEMORYD_LLM"),
    ("recall", {}, "There is no tool 'recall'; there are search_memories, remember"),
    ("x" * 9999, {}, f"There is no tool '{'x' * 100}'; there are"),
]


@pytest.mark.parametrize(("tool", "arguments", "said"), MISTAKES)
async def test_a_mistake_is_an_answer_that_says_what_to_do(
    client: httpx2.AsyncClient, tool: str, arguments: dict[str, object], said: str
) -> None:
    async with connected(client) as opened:
        result = await opened.call_tool(tool, arguments)
        assert result.is_error
        assert said in text_of(result)


async def test_a_mistake_of_ours_costs_the_call_alone(
    client: httpx2.AsyncClient, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a secret of the server")

    async with connected(client, mode=mode) as opened:
        agent = Agent(opened)
        await agent.remember("Ann likes ramen.")
        with monkeypatch.context() as broken:
            broken.setattr(SearchService, "plan", fail)
            said = await agent.refused("search_memories")
            assert said == "memoryd failed at this; its log says why. Trying again may help."
            with pytest.raises(Exception, match="memoryd failed at this; its log says why"):
                await opened.list_resources()
        assert await agent.texts() == ["Ann likes ramen."]


class TestSearch:
    async def test_looks_at_memories_unless_told_otherwise(
        self, client: httpx2.AsyncClient, store: Store
    ) -> None:
        async with connected(client) as opened:
            agent = Agent(opened)
            await agent.remember("Ann likes ramen.")
            await agent.remember("Bob likes ramen.", namespace=["users", "bob"])
            await store.put(["memories", "old"], "k", {"content": "Eve likes ramen."})
            texts = {"Ann likes ramen.", "Eve likes ramen."}
            assert set(await agent.texts(query="ramen")) == texts
            assert await agent.texts(query="ramen", namespace=["users"]) == ["Bob likes ramen."]
            assert set(await agent.texts(namespace=[])) == {*texts, "Bob likes ramen."}

    async def test_lists_the_newest_without_a_query(
        self, client: httpx2.AsyncClient, store: Store
    ) -> None:
        for number in range(4):
            await store.put(["memories"], str(number), {"content": str(number)})
        async with connected(client) as opened:
            found = await Agent(opened).search(limit=3)
        assert [memory["id"] for memory in found] == ["memories/3", "memories/2", "memories/1"]
        assert "score" not in found[0]

    async def test_takes_conditions(self, client: httpx2.AsyncClient, store: Store) -> None:
        await store.put(["memories"], "a", {"kind": "note", "content": "ramen", "stars": 3})
        await store.put(["memories"], "b", {"kind": "note", "content": "udon", "stars": 5})
        async with connected(client) as opened:
            assert await Agent(opened).texts(filter={"stars": {"$gte": 4}}) == ["udon"]

    async def test_shows_values_as_they_are(
        self, client: httpx2.AsyncClient, store: Store, mode: str
    ) -> None:
        value = {"content": "ramen", "none": None, "list": [1, {"a": None}], "ja": "ラーメン"}
        await store.put(["memories"], "a/b", value)
        async with connected(client, mode=mode) as opened:
            (found,) = await Agent(opened).search()
        assert found["value"] == value
        assert found["id"] == "memories/a%2Fb"


class TestUpdate:
    @pytest.mark.parametrize(
        ("before", "after"),
        [
            (
                {"content": "old", "tags": ["a"]},
                {"content": "new", "tags": ["a"]},
            ),
            (
                {"kind": "memory", "content": {"content": "old"}},
                {"kind": "memory", "content": {"content": "new"}},
            ),
            ({"text": "old", "none": None}, {"text": "new", "none": None}),
        ],
    )
    async def test_replaces_the_text_and_nothing_else(
        self,
        client: httpx2.AsyncClient,
        store: Store,
        before: dict[str, object],
        after: dict[str, object],
    ) -> None:
        await store.put(["memories"], "k", before, importance=0.4)
        async with connected(client) as opened:
            await Agent(opened).call("update_memory", id="memories/k", text="new")
        item = await store.get(["memories"], "k")
        assert item["value"] == after
        assert item["importance"] == 0.4

    async def test_of_many_at_once_each_is_done(
        self, client: httpx2.AsyncClient, store: Store
    ) -> None:
        await store.put(["memories"], "k", {"content": "old"})
        async with connected(client) as opened:
            agent = Agent(opened)
            texts = [f"number {number}" for number in range(8)]
            await asyncio.gather(
                *(agent.call("update_memory", id="memories/k", text=text) for text in texts)
            )
        item = await store.get(["memories"], "k")
        assert item["version"] == 9
        assert item["value"]["content"] in texts

    async def test_what_goes_away_meanwhile_is_not_there(
        self, client: httpx2.AsyncClient, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await store.put(["memories"], "k", {"content": "old"})
        patch = ItemWriter.patch

        async def too_late(writer: ItemWriter, *given: Any) -> Any:
            await store.delete(["memories"], "k")
            return await patch(writer, *given)

        monkeypatch.setattr(ItemWriter, "patch", too_late)
        async with connected(client) as opened:
            said = await Agent(opened).refused("update_memory", id="memories/k", text="new")
        assert said.startswith('There is no memory "memories/k"')

    async def test_sets_the_importance(self, client: httpx2.AsyncClient, store: Store) -> None:
        await store.put(["memories"], "k", {"content": "old"})
        async with connected(client) as opened:
            agent = Agent(opened)
            await agent.call("update_memory", id="memories/k", text="new", importance=1)
        assert (await store.get(["memories"], "k"))["importance"] == 1

    async def test_leaves_a_record_as_it_is(self, client: httpx2.AsyncClient, store: Store) -> None:
        record = {"kind": "profile", "content": {"name": "Ann"}}
        await store.put(["memories"], "k", record)
        async with connected(client) as opened:
            said = await Agent(opened).refused("update_memory", id="memories/k", text="new")
        assert said.startswith("Nothing was changed: memory memories/k is of the kind profile")
        assert (await store.get(["memories"], "k"))["value"] == record


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
