import json

import pytest
from langchain_core.messages import AIMessage
from pydantic import BaseModel

from tests.langmem import ours, theirs
from tests.langmem.both import TALK, Both, Form, as_config
from tests.langmem.decisions import (
    Done,
    Insert,
    Memory,
    Nothing,
    Patch,
    Remove,
    add,
    plain,
    remove,
    replace,
    reword,
    said,
)
from tests.langmem.original import Asked, ChatModel, calling, create_memory_manager, in_turn
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


async def test_nothing_known_and_nothing_said_is_nothing(both: Both) -> None:
    assert await both.agree([Nothing()]) == {}


async def test_one_memory_is_formed(both: Both) -> None:
    assert await both.agree([Insert("tea", TEA)]) == {"tea": TEA}


async def test_several_memories_are_formed_in_one_reply(both: Both) -> None:
    await both.agree([Insert("tea", TEA), Insert("home", PORTO), Insert("dog", DOG)])


@pytest.mark.parametrize("form", ["texts", "pairs", "triples"])
async def test_existing_memories_are_kept_changed_and_joined(both: Both, form: Form) -> None:
    memories = await both.agree(
        [reword("home", "Ana lives in Lisbon."), Insert("dog", DOG)],
        existing={"home": PORTO, "tea": TEA},
        form=form,
    )
    assert memories == {"home": said("Ana lives in Lisbon."), "tea": TEA, "dog": DOG}


@pytest.mark.parametrize("form", ["texts", "pairs", "triples"])
async def test_existing_memories_stay_as_they_are_where_nothing_is_new(
    both: Both, form: Form
) -> None:
    await both.agree([Nothing()], existing={"home": PORTO, "tea": TEA}, form=form)


@pytest.mark.parametrize("form", ["texts", "pairs", "triples"])
async def test_a_removed_memory_is_told_where_deleting_is_permitted(both: Both, form: Form) -> None:
    memories = await both.agree(
        [Remove("home"), Insert("dog", DOG)],
        existing={"home": PORTO, "tea": TEA},
        form=form,
        enable_deletes=True,
    )
    assert memories == {"tea": TEA, "dog": DOG}


async def test_everything_may_be_removed(both: Both) -> None:
    existing = {"home": PORTO, "tea": TEA}
    assert (
        await both.agree([Remove("home"), Remove("tea")], existing=existing, enable_deletes=True)
        == {}
    )


async def test_memories_are_only_added_where_updating_is_not_permitted(both: Both) -> None:
    await both.agree([Insert("dog", DOG)], existing={"tea": TEA}, enable_updates=False)


@pytest.mark.parametrize(
    ("edits", "content"),
    [
        ((replace("/name", "Ana Sousa"),), {"name": "Ana Sousa"}),
        ((replace("/address/city", "Lisbon"),), {"address": {"city": "Lisbon"}}),
        (
            (add("/address/street", "Rua Augusta"), replace("/address/city", "Lisbon")),
            {"address": {"city": "Lisbon", "street": "Rua Augusta"}},
        ),
        ((replace("/address", {"city": "Faro"}),), {"address": {"city": "Faro"}}),
        ((add("/age", 31),), {"age": 31}),
        ((add("/likes/-", "fado"),), {"likes": ["tea", "ska", "fado"]}),
        ((add("/likes/0", "fado"),), {"likes": ["fado", "tea", "ska"]}),
        ((remove("/likes/0"), remove("/likes/0")), {"likes": []}),
        ((remove("/likes/1"), add("/likes/-", "fado")), {"likes": ["tea", "fado"]}),
        ((replace("/likes", []),), {"likes": []}),
    ],
    ids=lambda value: None if isinstance(value, dict) else " ".join(e["path"] for e in value),
)
async def test_a_document_is_patched(
    both: Both, edits: tuple[dict[str, object], ...], content: dict[str, object]
) -> None:
    memories = await both.agree([Patch("ana", edits)], existing={"ana": ANA}, schemas=[Profile])
    assert memories == {"ana": Memory("Profile", ANA.content | content)}


async def test_a_member_is_removed(both: Both) -> None:
    older = Memory("Profile", {**ANA.content, "age": 30})
    memories = await both.agree(
        [Patch("ana", (remove("/age"),))], existing={"ana": older}, schemas=[Profile]
    )
    assert memories == {"ana": ANA}


async def test_a_profile_is_created_where_inserting_is_not_permitted(both: Both) -> None:
    memories = await both.agree([Insert("ana", ANA)], schemas=[Profile], enable_inserts=False)
    assert memories == {"ana": ANA}


@pytest.mark.parametrize("form", ["pairs", "triples"])
async def test_a_profile_is_patched_in_place(both: Both, form: Form) -> None:
    await both.agree(
        [Patch("ana", (add("/likes/-", "fado"), replace("/address/city", "Lisbon")))],
        existing={"ana": ANA},
        form=form,
        schemas=[Profile],
        enable_inserts=False,
    )


async def test_a_profile_stays_as_it_is_where_nothing_is_new(both: Both) -> None:
    await both.agree([Nothing()], existing={"ana": ANA}, schemas=[Profile], enable_inserts=False)


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


async def test_edits_may_be_written_as_text(both: Both) -> None:
    edits = [add("/likes/-", "fado")]

    def patch(asked: Asked) -> AIMessage:
        (id_,) = theirs.shown(asked)
        as_text = {"json_doc_id": id_, "planned_edits": "-", "patches": json.dumps(edits)}
        return calling(("PatchDoc", as_text))

    manager = create_memory_manager(ChatModel(respond=patch), schemas=[Profile])
    state = {"messages": TALK, "existing": [("ana", "Profile", ANA.content)]}
    ((_, by_theirs),) = await manager.ainvoke(state)

    update = ("update_memory", {"id": "m1", "edits": json.dumps(edits)})
    both.memoryd.llm.script.append(calls(update))
    existing = [{"id": "ana", "kind": "Profile", "content": ANA.content}]
    result = await both.memoryd.extract(
        TALK, manager_config=as_config([Profile], {}), existing=existing
    )
    (by_ours,) = result["memories"]
    assert by_ours["content"] == plain(by_theirs.model_dump(mode="json"))


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


async def test_no_more_steps_are_taken_than_permitted(both: Both) -> None:
    await both.agree([Insert("dog", DOG)], [Insert("tea", TEA)], max_steps=2)


async def test_what_comes_with_the_end_still_counts(both: Both) -> None:
    await both.agree([Insert("dog", DOG)], [Done(), Insert("tea", TEA)], max_steps=3)


async def test_a_step_in_which_nothing_is_new_is_the_last(both: Both) -> None:
    await both.agree([Insert("dog", DOG)], [Nothing()], max_steps=3)
