import pytest
from pydantic import BaseModel

from tests.langmem.decisions import Insert, Memory, Patch, Remove, add, replace, reword, said
from tests.langmem.original import LangMemMemory
from tests.langmem.parity import Parity

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


async def test_later_steps_continue_from_earlier_ones(parity: Parity) -> None:
    memories = await parity.agree(
        [reword("home", "Ana lives in Lisbon."), Insert("dog", DOG)],
        [reword("dog", "Ana has a dog called Rex, from Lisbon."), Insert("cat", said("A cat."))],
        [Remove("cat"), Remove("tea")],
        [],
        existing={"home": PORTO, "tea": TEA},
        max_steps=5,
        enable_deletes=True,
    )
    assert memories == [
        said("Ana lives in Lisbon."),
        said("Ana has a dog called Rex, from Lisbon."),
    ]
