"""How a score came about."""

import math
from typing import Any

import pytest

from app.search.scoring import LEXICAL_SHARE
from tests.search.requests import NOTES, page
from tests.support.app import Store

WEIGHTS = {"relevance": 2, "recency": 1, "importance": 1, "strength": 0.5}


async def explained(store: Store, query: str, **body: Any) -> dict[str, Any]:
    return await page(store, query=query, explain=True, **body)


def by_key(answer: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {item["key"]: item["explanation"] for item in answer["items"]}


@pytest.fixture
async def filled(store: Store) -> Store:
    value = {"parts": ["tea at five", "hot ramen soup", "ramen and more words in one long part"]}
    await store.put(NOTES, "parts", value, index=["parts[*]"], importance=0.8)
    await store.put(NOTES, "tea", {"text": "green tea"}, index=["text"], pinned=True)
    await store.put(NOTES, "plain", {"text": "bread"}, index=["text"])
    return store


async def test_every_part_of_a_score_is_told(filled: Store) -> None:
    answer = await explained(filled, "hot ramen unheard")
    found = by_key(answer)["parts"]
    assert found["passage"] == "hot ramen soup"
    assert (found["recency"], found["importance"], found["strength"]) == (1, 0.8, 0)
    assert [word["word"] for word in found["words"]] == ["hot", "ramen"]
    hot, ramen = found["words"]
    assert hot["rarity"] > ramen["rarity"]
    assert hot["weight"] == ramen["weight"]
    assert 0.5 < hot["weight"] < 0.6
    assert hot["nearby"] == 0
    assert found["found_by"] == ["vector", "text"]
    pinned = {key: parts["pinned"] for key, parts in by_key(answer).items()}
    assert pinned == {"tea": True, "parts": False, "plain": False}


async def test_the_parts_make_the_score(filled: Store) -> None:
    answer = await explained(filled, "hot ramen tea", weights=WEIGHTS)
    assert len(answer["items"]) == 3
    words = {word["word"]: word["rarity"] for word in answer["search"]["words"]}
    assert words.keys() == {"hot", "ramen", "tea"}
    for item in answer["items"]:
        parts = item["explanation"]
        blended = sum(weight * parts[name] for name, weight in WEIGHTS.items())
        assert item["score"] == pytest.approx(blended / sum(WEIGHTS.values()), abs=1e-5)
        covered = sum(w["rarity"] * max(w["weight"], w["nearby"]) for w in parts["words"])
        assert parts["lexical"] == pytest.approx(covered / sum(words.values()), abs=1e-5)
        meaning = (1 - LEXICAL_SHARE) * max(0, parts["similarity"])  # all words stand in the scope
        assert parts["relevance"] == pytest.approx(
            LEXICAL_SHARE * parts["lexical"] + meaning, abs=1e-5
        )


async def test_how_the_scope_was_searched_is_told(filled: Store) -> None:
    answer = await explained(filled, "the hot ramen", weights=WEIGHTS)
    assert answer["search"] == {
        "mode": "hybrid",
        "scope": "exact",
        "passages": 5,
        "words": [
            {"word": "hot", "rarity": pytest.approx(math.log(4), abs=1e-6), "passages": 1},
            {"word": "ramen", "rarity": pytest.approx(math.log(2.4), abs=1e-6), "passages": 2},
        ],
        "weights": WEIGHTS,
        "half_life_days": {"recency": 30, "strength": 7},
    }


async def test_what_was_not_compared_is_null(filled: Store) -> None:
    vector = by_key(await explained(filled, "hot ramen", mode="vector"))["parts"]
    assert (vector["lexical"], vector["words"]) == (None, [])
    assert vector["similarity"] == vector["relevance"]
    assert vector["found_by"] == ["vector"]
    text = by_key(await explained(filled, "hot ramen", mode="text"))["parts"]
    assert text["similarity"] is None
    assert text["lexical"] == text["relevance"]
    assert text["found_by"] == ["text"]


async def test_an_item_without_passages_was_not_compared(store: Store) -> None:
    await store.put(NOTES, "k", {"text": "ramen"}, index=False)
    answer = await explained(store, "ramen")
    parts = by_key(answer)["k"]
    assert answer["items"][0]["score"] is None
    nothing = ("relevance", "similarity", "lexical", "passage")
    assert [parts[name] for name in nothing] == [None] * 4
    assert (parts["words"], parts["found_by"]) == ([], [])


async def test_nothing_is_explained_unless_asked_for(filled: Store) -> None:
    response = await filled.client.post("/v1/store/items/search", json={"query": "ramen"})
    assert response.json().keys() == {"items", "next_cursor"}
    assert "explanation" not in response.json()["items"][0]


async def test_a_question_finds_its_item_and_is_never_returned(store: Store) -> None:
    await store.put(NOTES, "home", {"text": "Ana lives in Porto."}, questions=["Which city?"])
    await store.put(NOTES, "tea", {"text": "green tea"})
    answer = await explained(store, "Which city?")
    assert next(item["key"] for item in answer["items"]) == "home"
    assert by_key(answer)["home"]["passage"] is None
    assert by_key(answer)["home"]["lexical"] > 0.5
    seen = [answer["items"], await store.get(NOTES, "home"), await store.versions(NOTES, "home")]
    assert "question" not in str(seen)


async def test_questions_stay_with_an_item_and_go_with_its_index(store: Store) -> None:
    questions = ["Which city?"]
    await store.put(NOTES, "home", {"text": "Ana lives in Porto."}, questions=questions)
    patch = {"namespace": NOTES, "key": "home", "value": {"text": "Ana lives in Lisbon."}}
    await store.call("PATCH", "/v1/store/items", status=200, json=patch)
    assert by_key(await explained(store, "Which city?"))["home"]["lexical"] > 0.5
    await store.put(NOTES, "home", {"text": "Ana lives in Faro."})
    assert by_key(await explained(store, "Which city?"))["home"]["lexical"] == 0
    body = {"namespace": NOTES, "key": "home", "version": 1}
    await store.call("POST", "/v1/store/items/restore", status=200, json=body)
    assert by_key(await explained(store, "Which city?"))["home"]["lexical"] > 0.5
    await store.put(NOTES, "home", {"text": "Ana"}, index=False, questions=questions)
    assert by_key(await explained(store, "Which city?"))["home"]["similarity"] is None
