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
from tests.langmem.tool_parity import TEMPLATE, keys
from tests.support.llm_server import calls

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
        self.memoryd.llm.script.append(calls(*wanted))
        variables = {"user_id": self._user}
        job = await self.memoryd.job(
            "search", limit=limit, messages=TALK, namespace=TEMPLATE, variables=variables
        )
        assert job["state"] == "succeeded", job
        found: list[JSON] = job["result"]["items"]
        return found


@pytest.fixture
async def searchers(memoryd: Memoryd, request: pytest.FixtureRequest) -> Searchers:
    made = Searchers(memoryd, request.node.name)
    await made.put(**MEMORIES)
    return made


@pytest.mark.parametrize(
    ("queries", "limit", "names"),
    [
        (["dog called Rex", "lives in Porto"], 1, ["dog", "home"]),
        (["Ana likes tea.", "likes tea", "tea"], 1, ["tea"]),
    ],
    ids=["two", "the same"],
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
