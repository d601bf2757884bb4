import pytest
from pydantic import BaseModel

from tests.langmem.decisions import (
    JSON,
    Insert,
    Memory,
    Patch,
    Remove,
    add,
    replace,
    reword,
    said,
)
from tests.langmem.parity import TALK, Parity
from tests.support.llm_server import calls

pytestmark = pytest.mark.slow  # each waits for workers or models

PORTO = said("Ana lives in Porto.")
TEA = said("Ana likes tea.")
DOG = said("Ana has a dog called Rex.")
TIDY: JSON = {"instructions": "Put them in order."}


class Profile(BaseModel):
    name: str
    likes: list[str]


async def test_a_later_conversation_changes_earlier_memories(parity: Parity) -> None:
    stores = parity.store()
    await stores.extract([Insert("home", PORTO), Insert("tea", TEA)])
    await stores.extract([reword("home", "Ana lives in Lisbon."), Insert("dog", DOG)])
    await stores.extract([])
    await stores.extract([Remove("tea"), reword("dog", "Rex is old.")], enable_deletes=True)
    assert stores.held == {"home": said("Ana lives in Lisbon."), "dog": said("Rex is old.")}


async def test_a_default_is_stored_and_changed_under_its_key(parity: Parity) -> None:
    stores = parity.store([Profile])
    default = {"name": "unknown", "likes": []}
    await stores.extract([Patch("default", (replace("/name", "Ana"),))], default=default)
    await stores.extract([Patch("default", (add("/likes/-", "tea"),))], default=default)
    assert stores.held["default"].content == {"name": "Ana", "likes": ["tea"]}


async def test_a_phase_changes_extracted_memories(parity: Parity) -> None:
    stores = parity.store()
    await stores.put(tea=TEA, home=PORTO)
    await stores.extract(
        [Insert("dog", DOG), Insert("green", said("Ana drinks green tea."))],
        [
            reword("tea", "Ana likes tea, above all green tea."),
            Remove("green"),
            reword("dog", "Rex is Ana's dog."),
        ],
        phases=[TIDY],
    )
    assert stores.held == {
        "tea": said("Ana likes tea, above all green tea."),
        "home": PORTO,
        "dog": said("Rex is Ana's dog."),
    }


async def test_every_search_of_the_query_model_is_run(parity: Parity) -> None:
    stores = parity.store()
    await stores.put(dog=DOG, tea=TEA, **numbered(7))
    queries = ["Ana has a dog called Rex.", "Ana likes tea."]
    await stores.extract([Remove("dog")], query_limit=2, queries=queries, enable_deletes=True)
    for (memories,) in (stores.shown_theirs, stores.shown_ours):
        assert sorted(memory["content"] for memory in memories) == sorted(queries)


async def test_memories_stored_by_langmem_are_not_extracted_again(parity: Parity) -> None:
    stores = parity.store()
    await stores.put(tea=TEA)
    tea = {"content": TEA.content, "importance": 0.5}
    parity.memoryd.llm.script.append(calls(("insert_memory", tea)))
    result = await parity.memoryd.extract(TALK, namespace=stores.namespace)
    assert result["counts"]["inserted"] == 0
    await stores.check()


def numbered(count: int) -> dict[str, Memory]:
    """Return memories that have nothing to do with anything."""
    return {f"fact{n}": said(f"Fact number {n}.") for n in range(count)}
