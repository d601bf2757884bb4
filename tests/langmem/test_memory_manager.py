import pytest
from pydantic import BaseModel

from tests.langmem import ours
from tests.langmem.decisions import (
    Done,
    Insert,
    Memory,
    Patch,
    Remove,
    add,
    plain,
    replace,
    reword,
    said,
)
from tests.langmem.original import (
    ChatModel,
    LangMemMemory,
    calling,
    create_memory_manager,
    in_turn,
)
from tests.langmem.parity import TALK, Parity, as_config
from tests.support.llm_server import calls

pytestmark = pytest.mark.slow  # each waits for workers or models

PORTO = said("Ana lives in Porto.")
TEA = said("Ana likes tea.")
DOG = said("Ana has a dog called Rex.")


class Address(BaseModel):
    city: str
    street: str | None = None


class Profile(BaseModel):
    name: str
    address: Address
    likes: list[str]
    age: int | None = None


class Triple(BaseModel):
    subject: str
    predicate: str
    object: str
    context: str | None = None


ANA = Memory("Profile", {"name": "Ana", "address": {"city": "Porto"}, "likes": ["tea", "ska"]})


async def test_existing_memories_are_kept_changed_deleted_and_joined(parity: Parity) -> None:
    memories = await parity.agree(
        [reword("home", "Ana lives in Lisbon."), Insert("dog", DOG), Remove("tea")],
        existing={"home": PORTO, "tea": TEA, "cat": said("A cat.")},
        enable_deletes=True,
    )
    assert memories == [said("Ana lives in Lisbon."), said("A cat."), DOG]


async def test_memories_are_only_added_if_updates_are_disabled(parity: Parity) -> None:
    await parity.agree([Insert("dog", DOG)], existing={"tea": TEA}, enable_updates=False)


async def test_a_profile_is_patched_in_place(parity: Parity) -> None:
    await parity.agree(
        [Patch("ana", (add("/likes/-", "fado"), replace("/address/city", "Lisbon")))],
        existing={"ana": ANA},
        schemas=[Profile],
        enable_inserts=False,
    )


async def test_memories_have_several_schemas(parity: Parity) -> None:
    triple = {"subject": "Ana", "predicate": "owns", "object": "Rex"}
    memories = await parity.agree(
        [
            Patch("works", (replace("/object", "Bakery"), add("/context", "since May"))),
            Insert("dog", Memory("Triple", triple)),
            Insert("tea", TEA),
        ],
        existing={"works": Memory("Triple", {**triple, "predicate": "works for"}), "ana": ANA},
        schemas=[Triple, LangMemMemory, Profile],
    )
    assert [memory.kind for memory in memories] == ["Triple", "Profile", "Triple", "Memory"]


async def test_content_that_does_not_fit_its_schema_is_repaired(parity: Parity) -> None:
    wrong = {**ANA.content, "age": "thirty"}
    repair = {
        "json_doc_id": "call_0",
        "planned_edits": "-",
        "patches": [replace("/age", 30)],
    }
    model = ChatModel(
        respond=in_turn(calling(("Profile", wrong)), calling(("PatchFunctionErrors", repair)))
    )
    manager = create_memory_manager(model, schemas=[Profile])
    ((_, by_theirs),) = await manager.ainvoke({"messages": TALK})

    right = {**wrong, "age": 30}
    parity.memoryd.llm.script += [
        calls(ours.insert("Profile", wrong)),
        calls(ours.insert("Profile", right)),
    ]
    result = await parity.memoryd.extract(TALK, manager_config=as_config([Profile], {}))
    (by_ours,) = result["memories"]
    assert by_ours["content"] == plain(by_theirs.model_dump(mode="json")) == plain(right)
    assert result["rejected"] == []


async def test_later_steps_continue_from_earlier_ones(parity: Parity) -> None:
    memories = await parity.agree(
        [reword("home", "Ana lives in Lisbon."), Insert("dog", DOG)],
        [reword("dog", "Ana has a dog called Rex, from Lisbon."), Insert("cat", said("A cat."))],
        [Remove("cat"), Remove("tea")],
        [Done()],
        existing={"home": PORTO, "tea": TEA},
        max_steps=5,
        enable_deletes=True,
    )
    assert memories == [
        said("Ana lives in Lisbon."),
        said("Ana has a dog called Rex, from Lisbon."),
    ]
