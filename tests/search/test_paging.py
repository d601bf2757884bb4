"""Pages: by cursor and by offset, whatever changes in between."""

import base64
import json
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.clock import FrozenClock
from app.errors import InvalidRequestError
from app.search.cursors import (
    Cursor,
    ListedCursor,
    RankedCursor,
    fingerprint,
    read_cursor,
    write_cursor,
)
from tests.support.app import Store

NOTES = ["notes"]
SORTS = ("updated_at", "-updated_at", "created_at", "-created_at", "key", "-key")
RANKED: dict[str, Any] = {"query": "ramen soup"}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=3,
)


async def page(store: Store, **body: Any) -> dict[str, Any]:
    response = await store.client.post(
        "/v1/store/items/search", json={"namespace_prefix": NOTES, **body}
    )
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def all_pages(store: Store, *, limit: int, **body: Any) -> list[list[str]]:
    pages, cursor = [], None
    while True:
        answer = await page(store, limit=limit, cursor=cursor, **body)
        pages.append([item["key"] for item in answer["items"]])
        cursor = answer["next_cursor"]
        if cursor is None:
            return pages


def members_of(cursor: str) -> dict[str, Any]:
    members: dict[str, Any] = json.loads(base64.urlsafe_b64decode(cursor + "=="))
    return members


def cursor_of(members: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(members).encode()).decode().rstrip("=")


@pytest.fixture
async def filled(store: Store, clock: FrozenClock) -> Store:
    """Eleven items: of all words, of some, of none, equal ones, pinned ones, one not indexed."""
    texts = ["ramen soup", "ramen", "soup", "tea", "ramen", "ramen", "soup tea", "x", "ramen soup"]
    for n, text in enumerate(texts):
        clock.advance(timedelta(seconds=n % 2))
        more: dict[str, Any] = {"importance": n / 10, "pinned": n in {3, 8}}
        await store.put(NOTES, f"k{n}", {"text": text, "n": n}, index=["text"], **more)
    await store.put(NOTES, "unscored", {"text": "ramen"}, index=False)
    await store.put(NOTES, "early", {"text": "soup"}, index=["text"])
    await store.put(NOTES, "k0", {"text": "ramen soup"}, index=["text"])
    return store


BODIES: list[dict[str, Any]] = [
    RANKED,
    {**RANKED, "mode": "vector"},
    {**RANKED, "mode": "text"},
    {**RANKED, "min_score": 0.3},
    {**RANKED, "weights": {"relevance": 1, "recency": 1, "importance": 1, "strength": 1}},
    {**RANKED, "weights": {"relevance": 0, "importance": 1}},
    {**RANKED, "filter": {"n": {"$gte": 3}}},
    {},
    *({"sort": sort} for sort in SORTS),
    {"sort": "key", "filter": {"n": {"$gte": 3}}},
]


async def test_pages_of_every_size_follow_the_order_of_one_large_page(filled: Store) -> None:
    for body in BODIES:
        whole = await page(filled, limit=100, with_total=True, **body)
        order = [item["key"] for item in whole["items"]]
        assert whole["next_cursor"] is None
        assert whole["total"] == len(order) == len(set(order)) > 1
        for limit in (1, 3, len(order)):
            pages = await all_pages(filled, limit=limit, **body)
            assert [key for keys in pages for key in keys] == order, body
            assert [len(keys) for keys in pages[:-1]] == [limit] * (len(pages) - 1)
            assert pages[-1]


async def test_a_listing_is_in_the_order_asked_for(filled: Store) -> None:
    for sort in SORTS:
        items = (await page(filled, sort=sort))["items"]
        values = [item[sort.removeprefix("-")] for item in items]
        assert values == sorted(values, reverse=sort.startswith("-"))


async def test_a_cursor_goes_on_behind_an_offset(filled: Store) -> None:
    for body in (RANKED, {}):
        order = [item["key"] for item in (await page(filled, limit=100, **body))["items"]]
        first = await page(filled, limit=3, offset=2, **body)
        second = await page(filled, limit=3, cursor=first["next_cursor"], **body)
        found = [item["key"] for item in first["items"] + second["items"]]
        assert found == order[2:8]


async def test_a_page_may_have_another_size_than_the_one_before(filled: Store) -> None:
    order = [item["key"] for item in (await page(filled, limit=100, **RANKED))["items"]]
    first = await page(filled, limit=1, **RANKED)
    cursor = first["next_cursor"]
    second = await page(filled, limit=5, cursor=cursor, with_total=True, explain=True, **RANKED)
    assert [item["key"] for item in second["items"]] == order[1:6]
    assert second["total"] == 11


@pytest.mark.parametrize("body", [{**RANKED, "mode": "vector"}, {"sort": "key"}, {}], ids=str)
async def test_pages_repeat_and_miss_nothing_while_items_come_and_go(
    filled: Store, clock: FrozenClock, body: dict[str, Any]
) -> None:
    stay = [item["key"] for item in (await page(filled, limit=100, **body))["items"]]
    found, cursor = [], None
    for turn in range(20):
        answer = await page(filled, limit=2, cursor=cursor, **body)
        found += [item["key"] for item in answer["items"]]
        cursor = answer["next_cursor"]
        if cursor is None:
            break
        clock.advance(timedelta(hours=1))
        await filled.put(NOTES, f"new{turn}", {"text": "ramen soup"}, index=["text"])
        gone = found[-1]  # the one that the cursor stands behind
        await filled.delete(NOTES, gone)
    assert len(found) == len(set(found))
    assert [key for key in found if not key.startswith("new")] == stay


async def test_recency_is_reckoned_from_the_first_page(filled: Store, clock: FrozenClock) -> None:
    body = {**RANKED, "weights": {"recency": 1}, "limit": 4}
    whole = await page(filled, **body | {"limit": 8})
    first = await page(filled, **body)
    clock.advance(timedelta(days=60))
    second = await page(filled, cursor=first["next_cursor"], **body)
    assert second["items"] == whole["items"][4:]


async def test_a_cursor_of_another_search_is_refused(filled: Store) -> None:
    cursor = (await page(filled, limit=2, **RANKED))["next_cursor"]
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
        response = await filled.client.post("/v1/store/items/search", json=body)
        assert response.status_code == 422, other
        assert response.json()["errors"][0]["field"] == "cursor"


async def test_a_cursor_of_a_search_with_expired_items_is_refused_without(filled: Store) -> None:
    url, body = "/v1/store/items/search", {**RANKED, "limit": 2}
    first = await filled.client.post(url, json=body, params={"omit_expired": "false"})
    second = {**body, "cursor": first.json()["next_cursor"]}
    assert (await filled.client.post(url, json=second)).status_code == 422
    with_expired = await filled.client.post(url, json=second, params={"omit_expired": "false"})
    assert with_expired.status_code == 200


def read(cursor: str, kind: type[Cursor]) -> Cursor | None:
    """Return what is read, None where it is refused; any other error is a failure."""
    try:
        return read_cursor(cursor, "name", kind)
    except InvalidRequestError:
        return None


@given(st.text(), st.sampled_from([RankedCursor, ListedCursor]))
def test_text_that_is_no_cursor_is_refused(text: str, kind: type[Cursor]) -> None:
    assert read(text, kind) is None


@given(
    st.dictionaries(st.sampled_from([*RankedCursor.model_fields, "value", "more"]), json_values),
    st.sampled_from([RankedCursor, ListedCursor]),
)
def test_what_is_read_as_a_cursor_is_one(changes: dict[str, Any], kind: type[Cursor]) -> None:
    cursor = read(cursor_of(changes | {"search": "name"}), kind)
    assert cursor is None or read(write_cursor(cursor), kind) == cursor


@given(st.integers(0, 2**63 - 1))
def test_a_cursor_survives_the_way_to_the_client_and_back(item_id: int) -> None:
    cursor = Cursor(search="name", item_id=item_id)
    assert read(write_cursor(cursor), Cursor) == cursor


def test_searches_have_one_name_each() -> None:
    assert fingerprint({"a": 1, "b": 2}, "x") == fingerprint({"b": 2, "a": 1}, "x")
    assert fingerprint({"a": 1}, "x") != fingerprint({"a": 1}, "y")


@pytest.mark.slow
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
async def test_a_tampered_cursor_of_a_ranking_is_refused_or_read(
    client: httpx2.AsyncClient, data: st.DataObject
) -> None:
    store = Store(client)
    await store.put(NOTES, "a", {"text": "ramen"}, index=["text"])
    await store.put(NOTES, "b", {"text": "soup"}, index=["text"])
    members = members_of((await page(store, limit=1, **RANKED))["next_cursor"])
    name = data.draw(st.sampled_from(sorted(members)))
    if data.draw(st.booleans()):
        del members[name]
    else:
        members[name] = data.draw(json_values)
    body = {**RANKED, "namespace_prefix": NOTES, "cursor": cursor_of(members)}
    response = await client.post("/v1/store/items/search", json=body)
    assert response.status_code in {200, 422}
