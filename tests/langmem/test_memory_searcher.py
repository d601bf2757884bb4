"""LangMem's searcher and memoryd's search job, given the same queries of a model."""

from typing import Any

import pytest
from langgraph.func import entrypoint

from tests.langmem import theirs
from tests.langmem.original import ChatModel, calling, create_memory_searcher
from tests.langmem.ours import Memoryd
from tests.langmem.parity import TALK
from tests.support.llm_server import calls

pytestmark = pytest.mark.slow  # each waits for workers or models

NAMESPACE = ["memories", "finder"]
MEMORIES = {
    "dog": "Ana has a dog called Rex.",
    "tea": "Ana likes tea.",
    "home": "Ben lives in Porto.",
    "job": "Carla repairs bicycles for a living.",
}


@pytest.mark.parametrize(
    ("queries", "found"),
    [
        (["dog called Rex", "lives in Porto"], ["dog", "home"]),
        (["Ana likes tea.", "likes tea", "tea"], ["tea"]),
    ],
)
async def test_the_same_memories_are_found_each_once(
    memoryd: Memoryd, queries: list[str], found: list[str]
) -> None:
    store = theirs.store()
    for key, text in MEMORIES.items():
        await store.aput(tuple(NAMESPACE), key, {"content": text})
        await memoryd.store.put(NAMESPACE, key, {"content": text})

    wanted = [("search_memory", {"query": query, "limit": 1}) for query in queries]
    model = ChatModel(respond=lambda _: calling(*wanted))
    searcher = create_memory_searcher(model, namespace=tuple(NAMESPACE))

    @entrypoint(store=store)  # it finds its store only there
    async def search(messages: Any) -> Any:
        return await searcher.ainvoke({"messages": messages})

    by_theirs: Any = await search.ainvoke(TALK)

    memoryd.llm.script.append(calls(*(("search_memories", {"query": q}) for q in queries)))
    job = await memoryd.job("search", limit=1, messages=TALK, namespace=NAMESPACE)
    by_ours = job["result"]["items"]
    assert sorted(item.key for item in by_theirs) == found
    assert sorted(item["key"] for item in by_ours) == found
    assert all(item["value"] == {"content": MEMORIES[item["key"]]} for item in by_ours)
