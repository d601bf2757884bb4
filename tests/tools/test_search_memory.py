import json
from typing import Any

import httpx2
import pytest

from app.auth.access import Grant, Verb
from app.auth.service import KeyService
from tests.support.app import Store
from tests.tools.agent import HOME, Agent

TEA = "Alice drinks green tea."
DOG = "Alice has a dog called Rex."


async def test_memories_are_shown_as_langmem_shows_them(agent: Agent, store: Store) -> None:
    await store.put(HOME, "tea", {"content": TEA}, importance=0.8)
    await store.put(HOME, "dog", {"content": DOG})
    answer = await agent.answer("search_memory", {"query": "What does she drink? tea"})
    shown = json.loads(answer["content"])
    found = await store.search(HOME, query="What does she drink? tea")
    names = ("namespace", "key", "value", "created_at", "updated_at", "score")
    assert shown == [{name: item[name] for name in names} for item in found]
    assert shown[0]["key"] == "tea"
    assert shown[0]["namespace"] == HOME
    assert answer["artifact"] == found
    assert answer["artifact"][0]["importance"] == 0.8


async def test_the_key_that_is_shown_is_the_id_that_is_taken(agent: Agent) -> None:
    await agent.creates(TEA)
    (shown,) = await agent.finds("tea")
    await agent.does({"content": "No tea.", "action": "update", "id": shown["key"]})
    assert [item["value"] for item in await agent.finds("tea")] == [{"content": "No tea."}]


async def test_namespaces_below_are_searched_and_others_are_not(agent: Agent, store: Store) -> None:
    await store.put([*HOME, "work"], "deep", {"content": TEA})
    await store.put(["memories", "alice2"], "other", {"content": TEA})
    await store.put(["memories"], "above", {"content": TEA})
    assert [item["key"] for item in await agent.finds("tea")] == ["deep"]


async def test_a_page_and_a_filter_are_what_was_asked_for(agent: Agent, store: Store) -> None:
    for number in range(15):
        await store.put(
            HOME, f"k{number:02}", {"content": f"tea {number}", "even": number % 2 == 0}
        )
    first = [item["key"] for item in await agent.finds("tea")]
    assert len(first) == 10
    rest = [item["key"] for item in await agent.finds("tea", offset=10)]
    assert len(set(first) | set(rest)) == 15
    assert len(await agent.finds("tea", limit=3)) == 3
    assert len(await agent.finds("tea", limit="3", offset=None)) == 3
    even = await agent.finds("tea", filter={"even": True}, limit=100)
    assert len(even) == 8
    assert await agent.finds("tea", filter='{"even": true}', limit=100) == even


async def test_without_a_query_the_newest_are_listed(agent: Agent, store: Store) -> None:
    await store.put(HOME, "tea", {"content": TEA})
    assert [(item["key"], item["score"]) for item in await agent.finds("")] == [("tea", None)]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({}, "query: The field is missing; add it."),
        ({"query": None}, "query: This is not a string; send one."),
        ({"query": "x" * 20_001}, "query: String should have at most 20000 characters"),
        ({"query": "tea", "limit": 0}, "limit: Input should be greater than or equal to 1"),
        ({"query": "tea", "limit": 101}, "limit: Input should be less than or equal to 100"),
        ({"query": "tea", "limit": "many"}, "limit: This is not a number"),
        ({"query": "tea", "offset": -1}, "offset: Input should be greater than or equal to 0"),
        ({"query": "tea", "filter": []}, "filter: This is not a JSON object; send one."),
        ({"query": "tea", "filter": {"a": {"$like": "b"}}}, 'unknown operator "$like"; use one of'),
        ({"query": "tea", "filter": {"$and": []}}, "filter.$and"),
    ],
)
async def test_a_mistake_is_told_to_the_model(agent: Agent, arguments: Any, told: str) -> None:
    said = await agent.errs(arguments, name="search_memory")
    assert said.startswith("Nothing was searched: ")
    assert told in said


async def test_searching_takes_the_grant_to_read(
    client: httpx2.AsyncClient, keys: KeyService
) -> None:
    async def agent_with(*verbs: Verb) -> Agent:
        grants = (Grant(tuple(HOME), frozenset(verbs)),)
        token = await keys.create("agent", root=(), grants=grants, expires_at=None)
        return Agent(client, {"x-api-key": str(token)})

    blind = await agent_with(*set(Verb) - {Verb.READ})
    assert await blind.problem("search_memory", {"query": "tea"}) == (403, "forbidden")
    assert await (await agent_with(Verb.READ)).finds("tea") == []
