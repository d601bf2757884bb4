"""The tool `search_memory`."""

import json
from typing import Any

from app.auth.access import Verb
from tests.support.app import Store
from tests.tools.agent import HOME, Agent, AgentWith

TEA = "Alice drinks green tea."


async def test_memories_are_shown_as_langmem_shows_them(agent: Agent, store: Store) -> None:
    await store.put(HOME, "tea", {"content": TEA}, importance=0.8)
    await store.put(HOME, "dog", {"content": "Alice has a dog called Rex."})
    answer = await agent.answer("search_memory", {"query": "What does she drink? tea"})
    shown = json.loads(answer["content"])
    found = await store.search(HOME, query="What does she drink? tea")
    names = ("namespace", "key", "value", "created_at", "updated_at", "score")
    assert shown == [{name: item[name] for name in names} for item in found]
    assert (shown[0]["namespace"], shown[0]["key"]) == (HOME, "tea")
    assert answer["artifact"] == found
    assert answer["artifact"][0]["importance"] == 0.8


async def test_namespaces_below_are_searched_and_others_are_not(agent: Agent, store: Store) -> None:
    for namespace in ([*HOME, "work"], ["memories", "alice2"], ["memories"]):
        await store.put(namespace, "/".join(namespace), {"content": TEA})
    assert [item["namespace"] for item in await agent.search("tea")] == [[*HOME, "work"]]


async def test_the_model_chooses_a_page_and_a_filter(agent: Agent, store: Store) -> None:
    for number in range(15):
        value = {"content": f"tea {number}", "even": number % 2 == 0}
        await store.put(HOME, f"k{number:02}", value)
    first = [item["key"] for item in await agent.search("tea")]
    assert len(first) == 10
    rest = [item["key"] for item in await agent.search("tea", offset=10)]
    assert len(set(first) | set(rest)) == 15
    assert len(await agent.search("tea", limit="3", offset=None)) == 3
    even = await agent.search("tea", filter={"even": True}, limit=100)
    assert len(even) == 8
    assert await agent.search("tea", filter='{"even": true}', limit=100) == even


async def test_without_a_query_the_newest_are_listed(agent: Agent, store: Store) -> None:
    await store.put(HOME, "tea", {"content": TEA})
    assert [(item["key"], item["score"]) for item in await agent.search("")] == [("tea", None)]


async def test_a_mistake_is_explained_to_the_model(agent: Agent) -> None:
    mistakes: list[tuple[Any, str]] = [
        ({}, "query: The field is missing; add it."),
        ({"query": "x" * 20_001}, "query: String should have at most 20000 characters"),
        ({"query": "tea", "limit": 101}, "limit: Input should be less than or equal to 100"),
        ({"query": "tea", "limit": "many"}, "limit: This is not a number"),
        ({"query": "tea", "offset": -1}, "offset: Input should be greater than or equal to 0"),
        ({"query": "tea", "filter": {"a": {"$like": "b"}}}, 'unknown operator "$like"; use one of'),
    ]
    for arguments, error in mistakes:
        message = await agent.mistake(arguments, name="search_memory")
        assert message.startswith("Nothing was searched: ")
        assert error in message


async def test_searching_needs_the_grant_to_read(agent_with: AgentWith) -> None:
    blind = await agent_with(set(Verb) - {Verb.READ})
    assert await blind.problem("search_memory", {"query": "tea"}) == (403, "forbidden")
    assert await (await agent_with({Verb.READ})).search("tea") == []


async def test_long_memories_are_shortened_for_the_model_and_whole_for_the_program(
    agent: Agent, store: Store
) -> None:
    for number in range(30):
        value = {"content": f"log {number}: " + "step done; " * 1_000}
        await store.put(HOME, f"k{number:02}", value, index=False)
    answer = await agent.answer("search_memory", {"query": "", "limit": 20, "offset": 5})
    assert len(answer["content"]) < 60_000
    *shown, note = json.loads(answer["content"])
    assert len(shown) == len(answer["artifact"]) == 20
    assert all("characters left out)" in one["value"]["content"] for one in shown)
    assert all(one["value"]["content"].endswith("done; ") for one in answer["artifact"])
    assert note["note"].startswith("20 of the memories were shortened")
    for number in range(3):
        await store.put(HOME, f"m{number}", {"content": "x" * 100_000}, index=False)
    *shown, note = json.loads(await agent.call({"query": "", "limit": 9}, name="search_memory"))
    assert note["note"].endswith(f"More were left out: search with offset {len(shown)} for them.")
    assert len(shown) == 2
