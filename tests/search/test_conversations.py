"""What turns gain from the conversation around them, over HTTP."""

from typing import Any

import pytest

from app.config import Settings
from tests.search.requests import analyze, keys, page, put_parts, put_texts, say
from tests.support.app import Store


async def explanations(store: Store, query: str, **body: Any) -> dict[str, dict[str, Any]]:
    found = await page(store, query=query, explain=True, **body)
    return {item["key"]: item["explanation"] for item in found["items"]}


async def test_a_turn_is_found_by_the_turn_before_it(store: Store) -> None:
    await say(store, "when does the marathon start?", "yes, in May!", "good", "fine", "bye then")
    await put_texts(store, {"elsewhere": "in May, of course"})
    assert set((await keys(store, "marathon May"))[:2]) == {"t0", "t1"}
    await put_texts(store, {"twice": "in May, in May"})
    assert set((await keys(store, "marathon May"))[:2]) == {"t0", "t1"}


async def test_threads_of_one_name_in_two_namespaces_are_two(store: Store) -> None:
    await say(store, "marathon", namespace=["notes", "alice"])
    await say(store, "x", "filler", namespace=["notes", "bob"])
    assert (await explanations(store, "marathon"))["t1"]["found_by"] == ["vector"]


async def test_text_mode_keeps_an_item_whose_neighbour_has_more_of_the_word(store: Store) -> None:
    filler = " ".join(f"w{n}" for n in range(60))
    await say(store, "ramen ramen ramen")
    source = {"thread_id": "t", "position": 1}
    await put_parts(store, "two", "nothing here", f"ramen {filler}", source=source)
    assert set(await keys(store, "ramen", mode="text")) == {"t0", "two"}


async def test_an_answer_profits_from_a_question_that_a_filter_leaves_out(
    store: Store, indexed: Store, settings: Settings
) -> None:
    await say(store, "when is the marathon?", "in spring", "oh", "hm")
    await analyze(settings)
    everyone = await explanations(store, "marathon")
    body = {"query": "marathon", "filter": {"text": {"$in": ["in spring", "hm"]}}, "limit": 1}
    for asked, way in ((store, "exact"), (indexed, "index")):
        answer = await page(asked, **body, explain=True)
        assert answer["search"]["scope"] == way
        assert [item["key"] for item in answer["items"]] == ["t1"]
        found = answer["items"][0]["explanation"]
        changing = {"strength": 0}  # the searches before may have been counted
        assert {**found, **changing} == {**everyone["t1"], **changing}
        assert found["found_by"] == ["vector", "context"]
        assert found["words"][0]["nearby"] == pytest.approx(0.7 / 1.9, abs=0.03)


async def test_what_a_filter_leaves_out_is_no_result_in_text_mode_either(store: Store) -> None:
    await say(store, "marathon", "in spring", "the marathon again")
    body = {"filter": {"text": {"$ne": "marathon"}}, "mode": "text", "with_total": True}
    answer = await page(store, query="marathon", **body)
    assert [item["key"] for item in answer["items"]] == ["t2"]
    assert answer["total"] == 1
