"""What LangMem's managers miss in a store, and what memoryd finds."""

import pytest

from tests.langmem import ours, theirs
from tests.langmem.both import TALK
from tests.langmem.decisions import JSON, replace
from tests.langmem.original import InMemoryStore, create_manage_memory_tool
from tests.langmem.ours import Memoryd
from tests.langmem.stores import (
    MEMORY,
    Store,
    manager_of,
    shown_by_langmem,
    shown_by_memoryd,
    value,
)
from tests.support.llm_server import calls

pytestmark = pytest.mark.slow  # each waits for workers or models

TEA: JSON = {"content": "Ana likes tea."}
DOG: JSON = {"content": "Ana has a dog called Rex."}


async def test_with_a_limit_below_four_langmem_searches_for_nothing_and_memoryd_does(
    memoryd: Memoryd,
) -> None:
    store, namespace = Store(), ["limited", "ana"]
    await store.aput(("ana",), "tea", value("Ana likes tea."))
    assert await shown_by_langmem(store, TALK, query_limit=3) == []
    assert store.queries == []

    await memoryd.store.put(namespace, "tea", value("Ana likes tea."))
    assert await shown_by_memoryd(memoryd, namespace, TALK, query_limit=3) == [TEA]


async def test_langmem_searches_for_the_last_message_only_and_memoryd_for_all_that_was_said(
    memoryd: Memoryd,
) -> None:
    store, namespace = theirs.store(), ["windows", "ana"]
    texts = [DOG["content"], *(f"The weather fact number {n}." for n in range(8))]
    for number, text in enumerate(texts):
        await store.aput(("ana",), str(number), value(text))
        await memoryd.store.put(namespace, str(number), value(text))
    messages = [
        {"role": "user", "content": "My dog called Rex has died."},
        {"role": "assistant", "content": "Here is the weather fact, number 5."},
    ]
    assert DOG not in await shown_by_langmem(store, messages, query_limit=5)
    assert DOG in await shown_by_memoryd(memoryd, namespace, messages, query_limit=5)


async def test_langmem_without_await_searches_twice_for_the_same_and_memoryd_once(
    memoryd: Memoryd,
) -> None:
    store = Store()
    messages = [{"role": "user", "content": f"Nobody has said number {n}."} for n in range(3)]
    manager_of(store, query_limit=8).invoke({"messages": messages})
    assert len(store.queries) == 4
    assert len(set(store.queries)) == 2

    memoryd.embedder.calls.clear()
    await shown_by_memoryd(memoryd, ["once", "ana"], messages, query_limit=8)
    embedded = [text for texts in memoryd.embedder.calls for text in texts]
    assert len(embedded) == len(set(embedded)) > 0


async def test_what_the_agents_own_tool_wrote_crashes_langmem_and_is_read_by_memoryd(
    memoryd: Memoryd,
) -> None:
    store, namespace = theirs.store(), ["tool", "ana"]
    tool = create_manage_memory_tool(("ana",), store=store)
    await tool.ainvoke({"content": "Ana likes tea."})
    ((key, written),) = (await theirs.items(store, ["ana"])).items()
    assert written == TEA
    with pytest.raises(KeyError, match="kind"):
        await manager_of(store).ainvoke({"messages": TALK})

    await memoryd.store.put(namespace, key, written)
    edits = [replace("/content", "Ana likes green tea.")]
    memoryd.llm.script.append(calls(("update_memory", {"id": "m1", "edits": edits})))
    await memoryd.extract(TALK, manager_config=MEMORY, namespace=namespace)
    assert await memoryd.items(namespace) == {key: {"content": "Ana likes green tea."}}


async def test_items_of_namespaces_below_are_drawn_in_by_langmem_and_not_by_memoryd(
    memoryd: Memoryd,
) -> None:
    store, namespace = theirs.store(), ["prefix", "ana"]
    invoice = {"kind": "Invoice", "content": {"sum": 12}}
    await store.aput(("ana",), "tea", value("Ana likes tea."))
    await store.aput(("ana", "work"), "invoice", invoice)
    assert invoice["content"] in await shown_by_langmem(store, TALK)

    await memoryd.store.put(namespace, "tea", value("Ana likes tea."))
    await memoryd.store.put([*namespace, "work"], "invoice", invoice)
    assert await shown_by_memoryd(memoryd, namespace, TALK) == [TEA]


async def test_a_default_cannot_be_read_by_its_key_in_langmem_and_can_in_memoryd(
    memoryd: Memoryd,
) -> None:
    namespace, default = ["default", "ana"], {"content": "Nothing is known yet."}
    with pytest.raises(TypeError):
        manager_of(InMemoryStore(), default=default["content"]).get("default")

    memoryd.llm.script.append(calls(ours.no_change()))
    await memoryd.extract(TALK, manager_config={**MEMORY, "default": default}, namespace=namespace)
    assert (await memoryd.store.get(namespace, "default"))["value"]["content"] == default
