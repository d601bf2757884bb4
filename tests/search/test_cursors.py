"""Cursors: which are refused, and that none is answered with a failure of the server."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.db.pages import write_cursor
from app.errors import InvalidRequestError
from app.search.plan import Cursor, KeyCursor, RankedCursor, TimeCursor, read_search_cursor
from tests.search.requests import NOTES, all_pages, page, put_texts, status
from tests.support.app import Store

RANKED: dict[str, Any] = {"query": "ramen soup"}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=3,
)

counts = st.sampled_from([0.0, 1.0, 3.0]) | st.floats(0, 1e12)


def members_of(cursor: str) -> dict[str, Any]:
    members: dict[str, Any] = json.loads(base64.urlsafe_b64decode(cursor + "=="))
    return members


def cursor_of(members: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(members).encode()).decode().rstrip("=")


@pytest.fixture
async def three(store: Store) -> Store:
    await put_texts(store, {"a": "ramen", "b": "soup", "c": "ramen soup"})
    return store


async def test_a_cursor_of_another_search_is_refused(three: Store) -> None:
    cursor = (await page(three, limit=2, **RANKED))["next_cursor"]
    others: list[dict[str, Any]] = [
        {"query": "ramen"},
        {"mode": "text"},
        {"min_score": 0.1},
        {"filter": {"n": 1}},
        {"weights": {"recency": 1}},
        {"half_life_days": {"recency": 1}},
        {"valid_at": "2026-01-01"},
        {"namespace_prefix": []},
        {"query": None},
        {"query": None, "sort": "key"},
    ]
    for other in others:
        body = {"namespace_prefix": NOTES, **RANKED, "cursor": cursor, **other}
        response = await three.client.post("/v1/store/items/search", json=body)
        assert response.status_code == 422, other
        assert response.json()["errors"][0]["field"] == "cursor"


async def test_a_cursor_of_a_search_with_expired_items_is_refused_without(three: Store) -> None:
    url, body = "/v1/store/items/search", {**RANKED, "limit": 2}
    first = await three.client.post(url, json=body, params={"omit_expired": "false"})
    second = {**body, "cursor": first.json()["next_cursor"]}
    assert (await three.client.post(url, json=second)).status_code == 422
    with_expired = await three.client.post(url, json=second, params={"omit_expired": "false"})
    assert with_expired.status_code == 200


async def test_a_listing_goes_on_behind_any_key(store: Store) -> None:
    keys = ["\x01" * 511, "12.5", "2026-01-01T00:00:00Z", "漢" * 511]
    await put_texts(store, dict.fromkeys(keys, "ramen"))
    assert await all_pages(store, sort="key", limit=1) == [[key] for key in keys]


async def test_a_word_that_stood_nowhere_on_the_first_page_raises_no_score_above_1(
    store: Store,
) -> None:
    await put_texts(store, {"pin": "tea"}, pinned=True)
    await put_texts(store, {"a": "ramen", "b": "soup"})
    first = await page(store, query="ramen unheard", limit=1)
    await put_texts(store, {"new": "unheard ramen"})
    second = await page(store, query="ramen unheard", limit=1, cursor=first["next_cursor"])
    assert second["items"][0]["score"] <= 1


def read(cursor: str, kind: type[Cursor]) -> Cursor | None:
    """Return what is read, None where it is refused; any other error is a failure."""
    try:
        return read_search_cursor(cursor, "name", kind)
    except InvalidRequestError:
        return None


@given(st.text(), st.sampled_from([RankedCursor, TimeCursor, KeyCursor]))
def test_text_that_is_no_cursor_is_refused(text: str, kind: type[Cursor]) -> None:
    assert read(text, kind) is None


@settings(max_examples=50)
@given(
    st.dictionaries(st.sampled_from([*RankedCursor.model_fields, "value", "more"]), json_values),
    st.sampled_from([RankedCursor, TimeCursor, KeyCursor]),
)
def test_what_is_read_as_a_cursor_is_one(changes: dict[str, Any], kind: type[Cursor]) -> None:
    cursor = read(cursor_of(changes | {"search": "name"}), kind)
    assert cursor is None or read(write_cursor(cursor), kind) == cursor


@pytest.mark.slow
@settings(max_examples=25)
@given(
    st.fixed_dictionaries(
        {"pinned": st.booleans(), "passages_with": st.lists(counts, min_size=2, max_size=2)},
        optional={
            "seen": st.integers(0, 100_000),
            "now": st.floats(-1e12, 1e12),
            "score": st.none() | st.floats(-1, 1),
            "time": st.floats(-1e12, 1e12),
            "passages": counts,
            "average_length": counts,
        },
    ),
    json_values,
)
async def test_any_cursor_of_the_right_form_is_answered_and_others_are_refused(
    store: Store, changes: dict[str, Any], odd: Any
) -> None:
    await put_texts(store, {"a": "ramen", "b": "soup", "c": "ramen soup"})
    members = members_of((await page(store, limit=1, **RANKED))["next_cursor"])
    for name in members:
        tampered = cursor_of(members | {name: odd})
        assert await status(store, limit=1, cursor=tampered, **RANKED) in {200, 422}
    forged = cursor_of(members | changes)
    for item in (await page(store, limit=1, cursor=forged, explain=True, **RANKED))["items"]:
        assert 0 <= item["score"] <= 1
