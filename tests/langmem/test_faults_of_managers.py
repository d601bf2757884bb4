"""What goes wrong in LangMem's memory managers, and what memoryd does in its place."""

from typing import Any

import pytest
from langchain_core.messages import AIMessage
from pydantic import BaseModel

from tests.langmem import ours, theirs
from tests.langmem.both import TALK, as_config
from tests.langmem.decisions import JSON, Insert, Memory, Patch, Script, add, replace, reword, said
from tests.langmem.original import (
    Asked,
    ChatModel,
    LangMemMemory,
    calling,
    create_memory_manager,
    create_memory_store_manager,
    in_turn,
)
from tests.langmem.ours import Memoryd
from tests.support.llm_server import calls, says

pytestmark = pytest.mark.slow  # each waits for workers or models

BYE = [{"role": "user", "content": "Thanks, bye!"}]
TEA = "Ana likes tea."


class Person(BaseModel):
    name: str
    age: int


MEMORY = as_config([LangMemMemory], {})
PERSON = as_config([Person], {})
ANA = Memory("Person", {"name": "Ana", "age": 30})


async def test_a_farewell_must_be_remembered_by_langmem_and_need_not_be_by_memoryd(
    memoryd: Memoryd,
) -> None:
    model = ChatModel(respond=lambda _: calling(("Memory", {"content": "Ana said goodbye."})))
    kept = await create_memory_manager(model).ainvoke({"messages": BYE, "existing": [TEA]})
    assert model.asked[0].tools == ["PatchDoc", "Memory"]
    assert model.asked[0].tool_choice == "any"  # so one of them has to be called
    assert len(kept) == 2

    memoryd.llm.script.append(calls(ours.no_change()))
    result = await memoryd.extract(
        BYE, manager_config=MEMORY, existing=[{"content": {"content": TEA}}]
    )
    assert "no_change" in {tool.name for tool in memoryd.llm.requests[0].tools}
    assert [memory["change"] for memory in result["memories"]] == ["unchanged"]


async def test_a_fact_that_is_extracted_twice_is_there_twice_in_langmem_and_once_in_memoryd(
    memoryd: Memoryd,
) -> None:
    store = theirs.store()
    model = ChatModel(respond=lambda _: calling(("Memory", {"content": TEA})))
    manager = create_memory_store_manager(model, store=store, namespace=("ana",))
    for _ in range(2):
        await manager.ainvoke({"messages": TALK})
    values = (await theirs.items(store, ["ana"])).values()
    assert [value["content"]["content"] for value in values] == [TEA, TEA]

    memoryd.llm.script += [calls(ours.insert("Memory", {"content": TEA}))] * 2
    results = [
        await memoryd.extract(TALK, manager_config=MEMORY, namespace=["twice", "ana"])
        for _ in range(2)
    ]
    assert [result["counts"]["inserted"] for result in results] == [1, 0]
    assert len(await memoryd.items(["twice", "ana"])) == 1


async def test_words_in_place_of_a_repair_crash_langmem_and_are_no_harm_to_memoryd(
    memoryd: Memoryd,
) -> None:
    wrong = {"name": "Ben", "age": "unknown"}
    model = ChatModel(
        respond=in_turn(
            calling(("Person", wrong), ("Person", ANA.content)), *[AIMessage("I cannot.")] * 2
        )
    )
    manager = create_memory_manager(model, schemas=[Person])
    with pytest.raises(AttributeError, match="tool_call_id"):
        await manager.ainvoke({"messages": TALK})

    memoryd.llm.script += [
        calls(ours.insert("Person", wrong), ours.insert("Person", ANA.content)),
        says("I cannot."),
    ]
    result = await memoryd.extract(TALK, manager_config=PERSON)
    assert [memory["content"] for memory in result["memories"]] == [ANA.content]
    (rejected,) = result["rejected"]
    assert rejected["tool"] == "insert_Person"
    assert "unknown" in rejected["reason"]


async def test_edits_that_do_not_apply_are_dropped_silently_by_langmem_and_told_by_memoryd(
    memoryd: Memoryd,
) -> None:
    def patch(asked: Asked) -> AIMessage:
        (id_,) = theirs.shown(asked)
        edits = [replace("/nothing/there", "?")]
        patch = {"json_doc_id": id_, "planned_edits": "-", "patches": edits}
        unknown = {**patch, "json_doc_id": "unknown"}
        return calling(("PatchDoc", patch), ("PatchDoc", unknown))

    manager = create_memory_manager(ChatModel(respond=patch))
    ((_, content),) = await manager.ainvoke({"messages": TALK, "existing": [TEA]})
    assert content.content == TEA

    edits = [replace("/nothing/there", "?")]
    bad = calls(
        ("update_memory", {"id": "m1", "edits": edits}),
        ("update_memory", {"id": "m9", "edits": edits}),
    )
    memoryd.llm.script += [bad, calls(ours.no_change())]
    result = await memoryd.extract(
        TALK, manager_config=MEMORY, existing=[{"content": {"content": TEA}}]
    )
    assert [memory["content"] for memory in result["memories"]] == [{"content": TEA}]
    reasons = [rejected["reason"] for rejected in result["rejected"]]
    assert "/nothing/there" in reasons[0]
    assert "m9" in reasons[1]


async def test_of_two_updates_in_one_reply_langmem_loses_one_and_memoryd_none(
    memoryd: Memoryd,
) -> None:
    updates = [Patch("ana", (replace("/name", "Ana Sousa"),)), Patch("ana", (add("/age", 31),))]
    existing = [("ana", "Person", ANA.content)]
    script = Script(updates, held={"ana": ANA})
    ((_, content),) = await theirs.managed(script, TALK, existing, schemas=[Person])
    assert theirs.read(content).content == {"name": "Ana", "age": 31}

    memoryd.llm.respond = ours.responding(Script(updates, held={"ana": ANA}))
    known = [{"id": "ana", "kind": "Person", "content": ANA.content}]
    result = await memoryd.extract(TALK, manager_config=PERSON, existing=known)
    assert result["memories"][0]["content"] == {"name": "Ana Sousa", "age": 31}


async def test_a_second_step_over_stored_memories_crashes_langmem_and_not_memoryd(
    memoryd: Memoryd,
) -> None:
    home, replies = said("Ana lives in Porto."), ([Insert("tea", said(TEA))], [reword("tea", "!")])
    store = theirs.store()
    value = {"kind": "Memory", "content": home.content}
    await store.aput(("ana",), "home", value)
    manager = create_memory_store_manager(
        theirs.model_of(Script(*replies)), store=store, namespace=("ana",), query_limit=4
    )
    with pytest.raises(AttributeError, match="__repr_name__"):
        await manager.ainvoke({"messages": TALK, "max_steps": 2})

    await memoryd.store.put(["steps", "ana"], "home", value)
    memoryd.llm.respond = ours.responding(Script(*replies))
    await memoryd.extract(TALK, manager_config=MEMORY, namespace=["steps", "ana"], max_steps=2)
    contents = [value["content"] for value in (await memoryd.items(["steps", "ana"])).values()]
    assert sorted(map(str, contents)) == sorted(map(str, [home.content, {"content": "!"}]))


async def test_a_phase_makes_new_memories_langmems_own_kind_and_keeps_theirs_in_memoryd(
    memoryd: Memoryd,
) -> None:
    store = theirs.store()
    phase: JSON = {"instructions": "Put them in order."}
    model = ChatModel(respond=in_turn(calling(("Person", ANA.content)), calling()))
    manager = create_memory_store_manager(
        model, schemas=[Person], store=store, namespace=("ana",), phases=[phase]
    )
    await manager.ainvoke({"messages": TALK})
    (value,) = (await theirs.items(store, ["ana"])).values()
    assert value == {"kind": "Memory", "content": ANA.content}

    memoryd.llm.script += [calls(ours.insert("Person", ANA.content)), calls(ours.no_change())]
    config: dict[str, Any] = {**PERSON, "phases": [phase]}
    await memoryd.extract(TALK, manager_config=config, namespace=["phased", "ana"])
    (value,) = (await memoryd.items(["phased", "ana"])).values()
    assert value == {"kind": "Person", "content": ANA.content}
