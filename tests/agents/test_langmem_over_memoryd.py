"""LangMem itself, unchanged, with memoryd as its store."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langgraph.func import entrypoint
from langgraph_memoryd import MemorydStore

from tests.langmem import theirs
from tests.langmem.original import (
    Asked,
    ChatModel,
    calling,
    create_memory_searcher,
    create_memory_store_manager,
)
from tests.support.server import Server

pytestmark = pytest.mark.slow

TEA = "Ana likes tea."
GREEN = "Ana likes green tea."
NAMESPACE = ("memories", "{user_id}")


def of(user: str) -> Any:
    return {"configurable": {"user_id": user}}


@pytest.fixture
async def store(server: Server) -> AsyncIterator[MemorydStore]:
    async with MemorydStore(server.url) as opened:
        yield opened


async def test_langmems_manager_stores_memories_in_memoryd(store: MemorydStore) -> None:
    user = "stores"

    def respond(asked: Asked) -> AIMessage:
        known = theirs.shown(asked)
        if not known:
            return calling(("Memory", {"content": TEA}))
        ((id_, content),) = known.items()
        assert content == {"content": TEA}
        edit = {"op": "replace", "path": "/content", "value": GREEN}
        patch = {"json_doc_id": id_, "planned_edits": "-", "patches": [edit]}
        return calling(("PatchDoc", patch))

    manager = create_memory_store_manager(
        ChatModel(respond=respond), store=store, namespace=NAMESPACE
    )
    for text in ("I like tea.", "Only green tea, to be exact."):
        await manager.ainvoke({"messages": [{"role": "user", "content": text}]}, config=of(user))
    (item,) = await store.asearch(("memories", user))
    assert item.value == {"kind": "Memory", "content": {"content": GREEN}}


async def test_langmems_searcher_finds_memories_in_memoryd(store: MemorydStore) -> None:
    user = "searches"
    namespace = ("memories", user)
    await store.aput(namespace, "tea", {"content": TEA})
    await store.aput(namespace, "dog", {"content": "Ana has a dog called Rex."})
    query = {"query": "dog called Rex", "limit": 1}
    searcher = create_memory_searcher(
        ChatModel(respond=lambda _: calling(("search_memory", query))), namespace=NAMESPACE
    )

    @entrypoint(store=store)
    async def search(text: str) -> Any:
        return await searcher.ainvoke({"messages": [{"role": "user", "content": text}]})

    found: Any = await search.ainvoke("Where is Rex?", config=of(user))
    assert [item.key for item in found] == ["dog"]
