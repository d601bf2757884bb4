import pytest
from pydantic import BaseModel

from tests.langmem import ours
from tests.langmem.both import TALK, Both, Form, as_config
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
from tests.langmem.original import ChatModel, calling, create_memory_manager, in_turn
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


class Episode(BaseModel):
    observation: str
    thoughts: str
    action: str
    result: str


ANA = Memory("Profile", {"name": "Ana", "address": {"city": "Porto"}, "likes": ["tea", "ska"]})


async def test_one_memory_is_formed(both: Both) -> None:
    assert await both.agree([Insert("tea", TEA)]) == {"tea": TEA}


@pytest.mark.parametrize("form", ["texts", "pairs", "triples"])
async def test_existing_memories_are_kept_changed_and_joined(both: Both, form: Form) -> None:
    memories = await both.agree(
        [reword("home", "Ana lives in Lisbon."), Insert("dog", DOG)],
        existing={"home": PORTO, "tea": TEA},
        form=form,
    )
    assert memories == {"home": said("Ana lives in Lisbon."), "tea": TEA, "dog": DOG}


@pytest.mark.parametrize("form", ["texts", "pairs", "triples"])
async def test_a_removed_memory_is_told_where_deleting_is_permitted(both: Both, form: Form) -> None:
    memories = await both.agree(
        [Remove("home"), Insert("dog", DOG)],
        existing={"home": PORTO, "tea": TEA},
        form=form,
        enable_deletes=True,
    )
    assert memories == {"tea": TEA, "dog": DOG}


async def test_memories_are_only_added_where_updating_is_not_permitted(both: Both) -> None:
    await both.agree([Insert("dog", DOG)], existing={"tea": TEA}, enable_updates=False)


@pytest.mark.parametrize("form", ["pairs", "triples"])
async def test_a_profile_is_patched_in_place(both: Both, form: Form) -> None:
    await both.agree(
        [Patch("ana", (add("/likes/-", "fado"), replace("/address/city", "Lisbon")))],
        existing={"ana": ANA},
        form=form,
        schemas=[Profile],
        enable_inserts=False,
    )


async def test_memories_are_of_several_schemas(both: Both) -> None:
    episode = {
        "observation": "Ana asked for a route.",
        "thoughts": "She dislikes motorways.",
        "action": "A route along the coast was given.",
        "result": "She was happy with it.",
    }
    triple = {"subject": "Ana", "predicate": "owns", "object": "Rex"}
    memories = await both.agree(
        [
            Patch("works", (replace("/object", "Bakery"), add("/context", "since May"))),
            Insert("route", Memory("Episode", episode)),
            Insert("dog", Memory("Triple", triple)),
        ],
        existing={"works": Memory("Triple", {**triple, "predicate": "works for"}), "ana": ANA},
        schemas=[Triple, Episode, Profile],
    )
    assert [memory.kind for memory in memories.values()] == [
        "Triple",
        "Profile",
        "Episode",
        "Triple",
    ]


async def test_what_does_not_fit_its_schema_is_repaired(both: Both) -> None:
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
    both.memoryd.llm.script += [
        calls(ours.insert("Profile", wrong)),
        calls(ours.insert("Profile", right)),
    ]
    result = await both.memoryd.extract(TALK, manager_config=as_config([Profile], {}))
    (by_ours,) = result["memories"]
    assert by_ours["content"] == plain(by_theirs.model_dump(mode="json")) == plain(right)
    assert result["rejected"] == []


@pytest.mark.parametrize("form", ["texts", "pairs"])
async def test_later_steps_go_on_with_what_earlier_ones_made(both: Both, form: Form) -> None:
    memories = await both.agree(
        [reword("home", "Ana lives in Lisbon."), Insert("dog", DOG)],
        [reword("dog", "Ana has a dog called Rex, from Lisbon."), Insert("cat", said("A cat."))],
        [Remove("cat"), Remove("tea")],
        [Done()],
        existing={"home": PORTO, "tea": TEA},
        form=form,
        max_steps=5,
        enable_deletes=True,
    )
    assert memories == {
        "home": said("Ana lives in Lisbon."),
        "dog": said("Ana has a dog called Rex, from Lisbon."),
    }
