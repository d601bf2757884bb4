import pytest
from pydantic import BaseModel

from tests.langmem.both import TALK, Both
from tests.langmem.decisions import (
    JSON,
    Done,
    Insert,
    Memory,
    Nothing,
    Patch,
    Remove,
    add,
    replace,
    reword,
    said,
)
from tests.support.llm_server import calls

pytestmark = pytest.mark.slow  # each waits for workers or models

PORTO = said("Ana lives in Porto.")
TEA = said("Ana likes tea.")
DOG = said("Ana has a dog called Rex.")
TIDY: JSON = {"instructions": "Put them in order."}


class Profile(BaseModel):
    name: str
    likes: list[str]


async def test_memories_of_a_first_conversation_are_stored(both: Both) -> None:
    stores = both.store()
    await stores.learn([Insert("home", PORTO), Insert("tea", TEA)])
    assert len(stores.held) == 2


async def test_a_later_conversation_changes_what_an_earlier_one_left(both: Both) -> None:
    stores = both.store()
    await stores.learn([Insert("home", PORTO), Insert("tea", TEA)])
    await stores.learn([reword("home", "Ana lives in Lisbon."), Insert("dog", DOG)])
    await stores.learn([Nothing()])
    await stores.learn([Remove("tea"), reword("dog", "Rex is old.")], enable_deletes=True)
    assert stores.held == {"home": said("Ana lives in Lisbon."), "dog": said("Rex is old.")}


async def test_items_keep_their_keys_when_they_change(both: Both) -> None:
    stores = both.store()
    await stores.put(home=PORTO, tea=TEA, dog=DOG)
    await stores.learn([reword("home", "Ana lives in Lisbon."), Remove("tea")], enable_deletes=True)


async def test_steps_go_on_with_new_memories(both: Both) -> None:
    stores = both.store()
    await stores.learn(
        [Insert("home", PORTO), Insert("tea", TEA)],
        [reword("home", "Ana lives in Lisbon."), Remove("tea")],
        [Done()],
        max_steps=4,
        enable_deletes=True,
    )


async def test_a_profile_is_created_and_then_patched_in_place(both: Both) -> None:
    stores = both.store([Profile])
    await stores.learn(
        [Insert("ana", Memory("Profile", {"name": "Ana", "likes": []}))], enable_inserts=False
    )
    await stores.learn([Patch("ana", (add("/likes/-", "tea"),))], enable_inserts=False)
    await stores.learn([Nothing()], enable_inserts=False)
    assert stores.held == {"ana": Memory("Profile", {"name": "Ana", "likes": ["tea"]})}


async def test_a_default_is_stored_and_changed_under_its_key(both: Both) -> None:
    stores = both.store([Profile])
    default = {"name": "unknown", "likes": []}
    await stores.learn([Patch("default", (replace("/name", "Ana"),))], default=default)
    await stores.learn([Patch("default", (add("/likes/-", "tea"),))], default=default)
    assert stores.held["default"].content == {"name": "Ana", "likes": ["tea"]}


async def test_a_default_is_stored_where_there_is_nothing_new(both: Both) -> None:
    stores = both.store()
    await stores.learn([Nothing()], default={"content": "Nothing is known yet."})
    await stores.learn([Nothing()], default={"content": "Something else."})
    assert stores.held == {"default": said("Nothing is known yet.")}


async def test_users_have_memories_of_their_own(both: Both) -> None:
    ana, ben = both.store(), both.store()
    await ana.learn([Insert("home", PORTO)])
    await ben.learn([Insert("tea", TEA)])
    await ana.check()
    assert (len(ana.held), len(ben.held)) == (1, 1)
    assert ana.namespace != ben.namespace


async def test_a_phase_changes_what_the_extraction_left(both: Both) -> None:
    stores = both.store()
    await stores.put(tea=TEA, home=PORTO)
    await stores.learn(
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


async def test_phases_follow_one_another_with_rights_of_their_own(both: Both) -> None:
    stores = both.store()
    await stores.put(tea=TEA, home=PORTO)
    await stores.learn(
        [Nothing()],
        [Remove("home")],
        [Insert("dog", DOG), reword("tea", "Ana likes green tea.")],
        phases=[{**TIDY, "enable_inserts": False}, {**TIDY, "enable_deletes": False}],
    )
    (_, without_inserts, without_deletes) = (
        {tool.name for tool in received.tools} for received in stores.requests
    )
    assert without_inserts == {"update_memory", "delete_memory", "no_change"}
    assert without_deletes == {"insert_Memory", "update_memory", "no_change"}


async def test_a_phase_reads_the_conversation_only_if_it_is_to(both: Both) -> None:
    for included in (False, True):
        stores = both.store()
        await stores.put(tea=TEA)
        phases = [{**TIDY, "include_messages": included}]
        await stores.learn([Insert("dog", DOG)], [Nothing()], phases=phases)
        phase = stores.requests[-1]
        assert "Put them in order." in phase.system
        assert (TALK[0]["content"] in phase.last_user_text) is included


async def test_as_many_memories_are_shown_as_the_limit_says(both: Both) -> None:
    stores = both.store()
    shop = said("Ana has found a good tea shop.")
    await stores.put(shop=shop, **numbered(7))
    await stores.learn([Nothing()], query_limit=4)
    for (memories,) in (stores.shown_theirs, stores.shown_ours):
        assert len(memories) == 4
        assert shop.content in memories


async def test_a_model_of_its_own_says_what_to_search_for(both: Both) -> None:
    stores = both.store()
    await stores.put(dog=DOG, tea=TEA, **numbered(7))
    await stores.learn([reword("dog", "Rex is old.")], query_limit=1, queries=["dog called Rex"])
    assert stores.shown_ours == stores.shown_theirs == [[DOG.content]]


async def test_all_searches_of_the_query_model_are_made(both: Both) -> None:
    stores = both.store()
    await stores.put(dog=DOG, tea=TEA, **numbered(7))
    queries = ["Ana has a dog called Rex.", "Ana likes tea."]
    await stores.learn([Remove("dog")], query_limit=2, queries=queries, enable_deletes=True)
    for (memories,) in (stores.shown_theirs, stores.shown_ours):
        assert sorted(memory["content"] for memory in memories) == sorted(queries)


async def test_what_langmem_has_stored_is_not_learned_again_by_a_manager_of_the_built_in_kind(
    both: Both,
) -> None:
    stores = both.store()
    await stores.put(tea=TEA)
    tea = {"content": TEA.content, "importance": 0.5}
    both.memoryd.llm.script.append(calls(("insert_memory", tea)))
    result = await both.memoryd.extract(TALK, namespace=stores.namespace)
    assert result["counts"]["inserted"] == 0
    await stores.check()


def numbered(count: int) -> dict[str, Memory]:
    """Return memories that have nothing to do with anything."""
    return {f"fact{n}": said(f"Fact number {n}.") for n in range(count)}
