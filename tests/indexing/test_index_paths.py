"""Index paths whose work grows with the value, or doubles with every step."""

import time
from typing import Any

import pytest

from app.indexing.passages import InvalidIndexPathError, texts_at
from tests.support.app import Store

DEEP: Any = "x"
for _ in range(60):
    DEEP = {"a": DEEP}


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (DEEP, ".".join(["{a,a}"] * 60)),
        ({"a": [{"b": 1}] * 30_000}, "a[*].b"),
        ({"a": [{}] * 10_000}, "a[*].{" + ",".join("bcdefghi" * 8) + "}"),
    ],
)
def test_a_path_that_leads_to_too_many_places_is_refused_at_once(value: Any, path: str) -> None:
    started = time.thread_time()
    with pytest.raises(InvalidIndexPathError, match="leads to more than 20,000 places"):
        texts_at(value, path)
    assert time.thread_time() - started < 0.5


def test_a_path_may_lead_to_thousands_of_places() -> None:
    assert texts_at({"a": [{"b": n} for n in range(5_000)]}, "a[*].b")[-1] == "4999"


async def test_an_item_with_too_many_passages_is_refused_before_all_are_made(store: Store) -> None:
    value = {"a": [f"word {n}" for n in range(4_000)]}
    refused = await store.put(["a"], "k", value, index=["a[*]", "$"], status=422)
    assert "more than 2,000 passages" in refused.json()["detail"]
