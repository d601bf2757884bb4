"""What of a ranking is returned: diverse, and within a number of tokens."""

from datetime import UTC, datetime

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from app.json_values import JsonText
from app.namespaces import to_stored
from app.search.candidate_set import Floats
from app.search.hits import Hit
from app.search.scoring import diversify
from app.search.service import count_tokens, fit_tokens
from app.store.types import NO_METADATA, Address, Item
from tests.search.requests import NOTES, keys, put_texts
from tests.support.app import Store

descending = st.lists(st.floats(0, 1), min_size=1, max_size=8).map(
    lambda scores: np.array(sorted(scores, reverse=True))
)
places = st.integers(0, 2**31)

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def some_vectors(count: int, seed: int) -> Floats:
    vectors = np.random.default_rng(seed).standard_normal((count, 3))
    unit: Floats = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def item_with(value: str) -> Item:
    address = Address(to_stored(["a"]), "k")
    return Item(
        id=1,
        address=address,
        value=JsonText(value),
        version=1,
        metadata=NO_METADATA,
        index_paths=None,
        ttl=None,
        expires_at=None,
        created_at=NOW,
        updated_at=NOW,
    )


def results(*values: str) -> list[Hit]:
    return [Hit(item_with(value)) for value in values]


@given(descending, places, st.floats(0, 1), st.integers(0, 8))
def test_diversity_chooses_each_once_and_keeps_the_pinned_and_the_best(
    score: Floats, seed: int, diversity: float, pinned: int
) -> None:
    count, pinned = len(score), min(pinned, len(score))
    vectors = some_vectors(count, seed)
    chosen = diversify(score, vectors, diversity, count + 1, pinned=pinned)
    assert sorted(chosen) == list(range(count))
    assert chosen[:pinned] == list(range(pinned))
    assert pinned or score[chosen[0]] == score[0] or diversity > 1 - 1e-9
    kept = diversify(score, vectors, 0, count // 2)
    assert score[kept].tolist() == score[: count // 2].tolist()


def test_full_diversity_takes_what_is_least_like_the_chosen() -> None:
    angles = np.radians([0, 10, 90, 40])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert diversify(np.array([0.9, 0.8, 0.7, 0.6]), vectors, 1, 4) == [0, 2, 3, 1]


@given(st.lists(st.text(max_size=20)), st.integers(1, 20))
def test_a_budget_is_never_exceeded_and_keeps_the_order(values: list[str], budget: int) -> None:
    kept = [hit.item.value for hit in fit_tokens(results(*values), budget)]
    assert sum(map(count_tokens, kept)) <= budget
    rest = iter(values)
    assert all(value in rest for value in kept)
    everything = sum(map(count_tokens, values))
    assert fit_tokens(results(*values), everything) == results(*values)


async def test_a_page_fits_into_max_tokens(store: Store) -> None:
    for key, size in (("a", 20), ("b", 200), ("c", 20)):
        await store.put(NOTES, key, {"t": "ramen " + "x" * size}, index=["t"])
    assert count_tokens('{"t": "ramen xxxxxxxxxxxxxxxxxxxx"}') == 9
    assert await keys(store, None, sort="key", max_tokens=18) == ["a", "c"]
    assert await keys(store, None, sort="key", max_tokens=17) == ["a"]
    assert await keys(store, None, sort="key", max_tokens=8) == []
    assert sorted(await keys(store, "ramen", max_tokens=18)) == ["a", "c"]


async def test_diversity_holds_repetitions_back(store: Store) -> None:
    await put_texts(store, {"a": "ramen soup", "b": "ramen soup", "c": "ramen tea leaves"})
    await put_texts(store, {"pinned": "ramen soup"}, pinned=True)
    assert (await keys(store, "ramen soup"))[0] == "pinned"
    assert (await keys(store, "ramen soup"))[3] == "c"
    assert await keys(store, "ramen soup", diversity=0) == await keys(store, "ramen soup")
    assert (await keys(store, "ramen soup", diversity=1))[:2] == ["pinned", "c"]


async def test_diversity_takes_items_without_passages_too(store: Store) -> None:
    await store.put(NOTES, "a", {"t": "ramen"}, index=["t"])
    await store.put(NOTES, "b", {"t": "ramen"}, index=False)
    assert await keys(store, "ramen", diversity=0.5) == ["a", "b"]
