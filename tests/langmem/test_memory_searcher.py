from collections.abc import Sequence
from typing import Any

import pytest
from langgraph.func import entrypoint
from langgraph.store.base import SearchItem

from tests.langmem import theirs
from tests.langmem.decisions import JSON
from tests.langmem.original import (
    ChatModel,
    InMemoryStore,
    calling,
    create_memory_searcher,
)
from tests.langmem.ours import Memoryd
from tests.langmem.tools import TEMPLATE, keys
from tests.support.llm_server import calls, says

pytestmark = pytest.mark.slow  # each waits for workers or models

TALK = [
    {"role": "user", "content": "I want to take Rex along to the tea shop."},
    {"role": "assistant", "content": "Which one?"},
    {"role": "user", "content": "The one in Porto."},
]
MEMORIES = {
    "dog": "Ana has a dog called Rex.",
    "tea": "Ana likes tea.",
    "home": "Ben lives in Porto.",
    "job": "Carla repairs bicycles for a living.",
}


class Searchers:
    """Both ways to search for what a conversation is about, over the same memories."""

    def __init__(self, memoryd: Memoryd, user: str) -> None:
        self.memoryd = memoryd
        self.store: InMemoryStore = theirs.store()
        self.model = ChatModel(respond=lambda _: calling())
        self._user = user

    async def put(self, **memories: str) -> None:
        namespace = ["memories", self._user]
        for key, text in memories.items():
            await self.store.aput(tuple(namespace), key, {"content": text})
            await self.memoryd.store.put(namespace, key, {"content": text})

    async def by_langmem(self, *queries: JSON) -> list[SearchItem]:
        """Return what LangMem finds where its model calls its tool with these arguments."""
        wanted = [("search_memory", query) for query in queries]
        self.model = ChatModel(respond=lambda _: calling(*wanted))
        searcher = create_memory_searcher(self.model, namespace=tuple(TEMPLATE))

        @entrypoint(store=self.store)  # it finds its store only there
        async def search(messages: list[JSON]) -> Any:
            return await searcher.ainvoke({"messages": messages})

        config: Any = {"configurable": {"user_id": self._user}}
        found: Any = await search.ainvoke(TALK, config=config)
        return list(found)

    async def by_memoryd(self, *queries: str, limit: int = 10) -> list[JSON]:
        """Return what memoryd's job finds where its model writes these queries."""
        wanted = [("search_memories", {"query": query}) for query in queries]
        self.memoryd.llm.script.append(calls(*wanted) if wanted else says("Nothing to look up."))
        job = await self.memoryd.job("search", limit=limit, **self.request)
        assert job["state"] == "succeeded", job
        found: list[JSON] = job["result"]["items"]
        return found

    @property
    def request(self) -> JSON:
        return {"messages": TALK, "namespace": TEMPLATE, "variables": {"user_id": self._user}}


@pytest.fixture
async def searchers(memoryd: Memoryd, request: pytest.FixtureRequest) -> Searchers:
    made = Searchers(memoryd, request.node.name)
    await made.put(**MEMORIES)
    return made


@pytest.mark.parametrize(
    ("queries", "limit", "names"),
    [
        (["dog called Rex"], 1, ["dog"]),
        (["dog called Rex", "lives in Porto"], 1, ["dog", "home"]),
        (["Ana likes tea.", "likes tea", "tea"], 1, ["tea"]),
        (["dog called Rex", "lives in Porto"], 10, list(MEMORIES)),
    ],
    ids=["one", "two", "the same", "all"],
)
async def test_the_same_memories_are_found_each_once(
    searchers: Searchers, queries: Sequence[str], limit: int, names: Sequence[str]
) -> None:
    by_theirs = await searchers.by_langmem(*({"query": q, "limit": limit} for q in queries))
    by_ours = await searchers.by_memoryd(*queries, limit=limit)
    assert sorted(item.key for item in by_theirs) == sorted(keys(by_ours)) == sorted(names)
    assert [item["value"] for item in by_ours] == [
        {"content": MEMORIES[item["key"]]} for item in by_ours
    ]


async def test_the_best_come_first(searchers: Searchers) -> None:
    queries = ["dog called Rex", "lives in Porto"]
    by_theirs = [item.score or 0 for item in await searchers.by_langmem(*as_theirs(queries))]
    by_ours = [item["score"] for item in await searchers.by_memoryd(*queries)]
    assert by_theirs == sorted(by_theirs, reverse=True)
    assert by_ours == sorted(by_ours, reverse=True)


async def test_a_model_is_asked_once_and_reads_the_conversation(searchers: Searchers) -> None:
    queries = ["dog called Rex", "lives in Porto"]
    await searchers.by_langmem(*as_theirs(queries))
    await searchers.by_memoryd(*queries)
    (asked,), (received,) = searchers.model.asked, searchers.memoryd.llm.requests
    assert (asked.tools, asked.tool_choice) == (["search_memory"], "search_memory")
    assert [tool.name for tool in received.tools] == ["search_memories"]
    for message in TALK:
        assert message["content"] in asked.text
        assert message["content"] in received.last_user_text


async def test_an_agents_own_search_has_the_models_queries_beside_it(searchers: Searchers) -> None:
    llm = searchers.memoryd.llm
    llm.script.append(calls(("search_memories", {"query": "lives in Porto"})))
    body = {**searchers.request, "arguments": {"query": "dog called Rex", "limit": 2}}
    response = await searchers.memoryd.client.post("/v1/tools/search_memory", json=body)
    assert sorted(keys(response.json()["artifact"])) == ["dog", "home"]


async def test_a_memory_found_twice_has_any_of_its_scores_in_langmem_and_the_best_in_memoryd(
    searchers: Searchers,
) -> None:
    near, far = "Ana has a dog called Rex.", "Rex"
    alone = {
        query: {item.key: item.score for item in await searchers.by_langmem({"query": query})}
        for query in (near, far)
    }
    assert (alone[near]["dog"] or 0) > (alone[far]["dog"] or 0)
    found = {item.key: item.score for item in await searchers.by_langmem(*as_theirs([near, far]))}
    assert found["dog"] == alone[far]["dog"]  # the last one's

    for queries in ([near, far], [far, near]):
        scores = {item["key"]: item["score"] for item in await searchers.by_memoryd(*queries)}
        best = {item["key"]: item["score"] for item in await searchers.by_memoryd(near)}
        assert scores["dog"] == pytest.approx(best["dog"])


async def test_without_queries_langmem_finds_nothing_and_memoryd_searches_with_the_conversation(
    searchers: Searchers,
) -> None:
    assert await searchers.by_langmem() == []
    assert {"dog", "tea", "home"} <= set(keys(await searchers.by_memoryd()))


async def test_a_query_that_cannot_be_read_ends_langmems_search_and_not_memoryds(
    searchers: Searchers,
) -> None:
    with pytest.raises(ValueError, match="Field required"):
        await searchers.by_langmem({"about": "Rex"}, {"query": "dog called Rex"})
    wanted = [{"about": "Rex"}, {"query": "dog called Rex"}]
    searchers.memoryd.llm.script.append(calls(*(("search_memories", query) for query in wanted)))
    job = await searchers.memoryd.job("search", limit=1, **searchers.request)
    assert keys(job["result"]["items"]) == ["dog"]


async def test_langmems_searcher_works_only_within_a_graph(memoryd: Memoryd) -> None:
    model = ChatModel(respond=lambda _: calling(("search_memory", {"query": "Rex"})))
    searcher = create_memory_searcher(model, namespace=tuple(TEMPLATE))
    config: Any = {"configurable": {"user_id": "ana"}}
    with pytest.raises(KeyError, match="__pregel_runtime"):
        await searcher.ainvoke({"messages": TALK}, config)
    assert await Searchers(memoryd, "anywhere").by_memoryd("Rex") == []


def as_theirs(queries: Sequence[str]) -> list[JSON]:
    return [{"query": query} for query in queries]
