"""When a memory holds, and which searches are refused."""

from typing import Any

import httpx2
import pytest

from app.search.schemas import SearchItems
from tests.search.requests import NOTES, put_texts, status
from tests.support.app import Store

SPANS: dict[str, dict[str, Any]] = {
    "always": {},
    "since-march": {"valid_from": "2026-03-01T00:00:00Z"},
    "until-june": {"valid_to": "2026-06-01T00:00:00Z"},
    "spring": {"valid_from": "2026-03-01T00:00:00Z", "valid_to": "2026-06-01T00:00:00Z"},
    "never": {"valid_from": "2026-04-01T00:00:00Z", "valid_to": "2026-04-01T00:00:00Z"},
}


@pytest.fixture
async def spans(store: Store) -> Store:
    for key, span in SPANS.items():
        await store.put(NOTES, key, {"text": "ramen"}, index=["text"], **span)
    return store


HOLDING: list[tuple[str | None, set[str]]] = [
    (None, set(SPANS)),
    ("2026-02-28T23:59:59.999999Z", {"always", "until-june"}),
    ("2026-03-01T00:00:00Z", {"always", "since-march", "until-june", "spring"}),
    ("2026-03-01T00:59:59+01:00", {"always", "until-june"}),
    ("2026-04-01T00:00:00", {"always", "since-march", "until-june", "spring"}),
    ("2026-06-01", {"always", "since-march"}),
]


async def test_only_what_holds_at_a_moment_is_found(spans: Store) -> None:
    for moment, keys in HOLDING:
        for query in (None, "ramen"):
            found = await spans.search(NOTES, query=query, valid_at=moment)
            assert {item["key"] for item in found} == keys, moment
            body = {"query": query, "valid_at": moment, "with_total": True, "limit": 0}
            response = await spans.client.post("/v1/store/items/search", json=body)
            assert response.json()["total"] == len(keys)


PERIODS: dict[str, dict[str, Any]] = {
    "in-2022": {"valid_from": "2022", "valid_to": "2022"},
    "from-july": {"valid_from": "2022-07"},
    "until-a-day": {"valid_to": "2022-07-31"},
    "until-a-time": {"valid_to": "2022-07-31T00:00:00+00:00"},
}


async def test_a_period_holds_from_its_beginning_to_its_end(store: Store) -> None:
    for key, span in PERIODS.items():
        await store.put(NOTES, key, {"text": "ramen"}, index=["text"], **span)
    for moment, keys in (
        ("2021-12-31T23:59:59Z", {"until-a-day", "until-a-time"}),
        ("2022-01-01T00:00:00Z", {"in-2022", "until-a-day", "until-a-time"}),
        ("2022-07-31T00:00:00Z", {"in-2022", "from-july", "until-a-day"}),
        ("2022-12-31T23:59:59.999999Z", {"in-2022", "from-july"}),
        ("2023-01-01T00:00:00Z", {"from-july"}),
    ):
        found = await store.search(NOTES, valid_at=moment)
        assert {item["key"] for item in found} == keys, moment
    for condition, keys in (
        ({"valid_to": "2022"}, {"in-2022"}),
        ({"valid_to": {"$lt": "2022"}}, {"until-a-day", "until-a-time"}),
        ({"valid_to": {"$lte": "2022-07-31"}}, {"until-a-day", "until-a-time"}),
        ({"valid_from": {"$gte": "2022-02"}}, {"from-july"}),
    ):
        found = await store.search(NOTES, filter={"$meta": condition})
        assert {item["key"] for item in found} == keys, condition


async def test_dates_are_read_back_as_exact_as_they_were_given(store: Store) -> None:
    for key, span in PERIODS.items():
        given = dict.fromkeys(("valid_from", "valid_to")) | span
        await store.put(NOTES, key, {"text": "ramen"}, index=["text"], **span)
        patch = {"namespace": NOTES, "key": key, "value": {"text": "soba"}}
        await store.call("PATCH", "/v1/store/items", status=200, json=patch)
        for query in (None, "soba"):
            found = {item["key"]: item for item in await store.search(NOTES, query=query)}
            assert given.items() <= found[key].items()
        assert all(given.items() <= state.items() for state in await store.versions(NOTES, key))
        body = {"namespace": NOTES, "key": key, "version": 1}
        restored = await store.call("POST", "/v1/store/items/restore", status=200, json=body)
        assert given.items() <= restored.json().items()


async def test_recency_counts_from_when_a_memory_was_said(store: Store) -> None:
    for key, said in (("old", "2020-01-01"), ("new", "2025-12-31"), ("unsaid", None)):
        await store.put(NOTES, key, {"text": "ramen"}, index=["text"], said_last=said)
    weights = {"relevance": 0, "recency": 1}
    found = await store.search(NOTES, query="ramen", weights=weights)
    assert [item["key"] for item in found] == ["unsaid", "new", "old"]
    filter_ = {"$meta": {"said_last": {"$lt": "2021-01-01"}}}
    assert [item["key"] for item in await store.search(NOTES, filter=filter_)] == ["old"]


async def test_items_of_a_class_of_sources_are_left_out_or_weigh_less(store: Store) -> None:
    for key, source_class in (("a", "user"), ("b", "tool"), ("c", None), ("d", "document")):
        text = {"text": "ramen"}
        await store.put(NOTES, key, text, index=["text"], source_class=source_class)
    trusted = {"$meta": {"source_class": {"$nin": ["tool", "document"]}}}
    found = await store.search(NOTES, query="ramen", filter=trusted)
    assert {item["key"] for item in found} == {"a", "c"}
    full = (await store.search(NOTES, query="ramen"))[0]["score"]
    weights = {"tool": 0.5, "document": 0}
    for mode in ("hybrid", "text", "vector"):
        query = {"query": "ramen", "mode": mode, "class_weights": weights, "explain": True}
        found = await store.search(NOTES, **query)
        assert {item["key"] for item in found[:2]} == {"a", "c"}
        assert [item["key"] for item in found[2:]] == ["b", "d"]
        assert [item["explanation"]["class_weight"] for item in found] == [1, 1, 0.5, 0]
        if mode == "hybrid":
            assert [item["score"] for item in found] == [full, full, full / 2, 0]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"mode": "fuzzy"}, "mode"),
    ({"limit": -1}, "limit"),
    ({"limit": 1001}, "limit"),
    ({"offset": -1}, "offset"),
    ({"namespace_prefix": ["a", ""]}, "namespace_prefix"),
    ({"filter": {"a": {"$in": 1}}}, "filter.a.$in"),
    ({"filter": {"a": "\x00"}}, "filter.a"),
    ({"filter": []}, "filter"),
    ({"valid_at": "soon"}, "valid_at"),
    ({"valid_at": "0001-01-01T00:00:00+14:00"}, "valid_at"),
    ({"weights": {"relevance": -1}}, "weights.relevance"),
    ({"weights": {"recency": 1001}}, "weights.recency"),
    ({"weights": {"strength": True}}, "weights.strength"),
    ({"weights": {"beauty": 1}}, "weights.beauty"),
    ({"weights": {"relevance": 0}}, "weights"),
    ({"class_weights": {"rumor": 0.5}}, "class_weights"),
    ({"class_weights": {"tool": 1.5}}, "class_weights.tool"),
    ({"half_life_days": {"recency": 0.0009}}, "half_life_days.recency"),
    ({"half_life_days": {"strength": 1e-320}}, "half_life_days.strength"),
    ({"half_life_days": {"recency": 36_501}}, "half_life_days.recency"),
    ({"half_life_days": {"importance": 1}}, "half_life_days.importance"),
    ({"min_score": 1.1}, "min_score"),
    ({"diversity": 2}, "diversity"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": 10**7 + 1}, "max_tokens"),
    ({"max_tokens": 1.5}, "max_tokens"),
    ({"cursor": "漢字"}, "cursor"),
    ({"cursor": "x" * 100_000}, "cursor"),
    ({"sort": "value"}, "sort"),
    ({"sort": ""}, "sort"),
    ({"with_total": 1}, "with_total"),
    ({"explain": "true"}, "explain"),
    ({"cheese": 1}, "cheese"),
]


async def test_bad_searches_are_refused_naming_the_field(client: httpx2.AsyncClient) -> None:
    url, json_type = "/v1/store/items/search", {"content-type": "application/json"}
    for member in ('"min_score": NaN', '"diversity": Infinity', '"weights": {"recency": 1e999}'):
        response = await client.post(url, content=f"{{{member}}}", headers=json_type)
        assert response.status_code == 422, member
    refused = await client.post(url, json={"query": "a\x00"})
    assert refused.json()["errors"][0]["field"] == "query"
    for body, field in REFUSED:
        for query in ("ramen", None):
            response = await client.post(url, json={"query": query, **body})
            assert response.status_code == 422, body
            assert response.json()["errors"][0]["field"] == field


async def test_members_that_exclude_each_other_are_refused(client: httpx2.AsyncClient) -> None:
    for body, message in (
        ({"cursor": "x", "offset": 1}, "cursor and offset are both given"),
        ({"cursor": "x", "diversity": 0.5}, "cursor and diversity are both given"),
        ({"query": "ramen", "sort": "key"}, "sort and query are both given"),
        ({"diversity": 0.5, "offset": 1000, "limit": 1}, "diversity reaches 1000 results"),
        ({"diversity": 0.5, "offset": 991}, "diversity reaches 1000 results"),
    ):
        response = await client.post("/v1/store/items/search", json=body)
        assert response.status_code == 422
        assert message in response.json()["detail"]


async def test_the_largest_searches_allowed_are_answered(store: Store) -> None:
    await put_texts(store, {"k": "ramen"})
    for body in (
        {"diversity": 0.5, "offset": 990},
        {"diversity": 1, "limit": 1000},
        {"offset": 100_000, "limit": 1000},
        {"half_life_days": {"recency": 0.001, "strength": 0.001}, "weights": {"strength": 1000}},
        {"half_life_days": {"recency": 36_500}, "weights": {"recency": 1e-300}},
    ):
        assert await status(store, query="ramen", **body) == 200, body


async def test_an_operation_of_a_batch_is_refused_naming_its_field(store: Store) -> None:
    good, bad = {"op": "search"}, {"op": "search", "weights": {"relevance": 0}}
    results = await store.batch(good, bad, {**good, "cursor": "x"}, atomic=False)
    assert results[0]["found"] == {"items": [], "next_cursor": None}
    assert [failed["problem"]["errors"][0]["field"] for failed in results[1:]] == [
        "weights",
        "cursor",
    ]


async def test_null_is_the_default_of_every_field(store: Store) -> None:
    await store.put(NOTES, "k", {"text": "ramen"}, index=["text"])
    nothing = dict.fromkeys(SearchItems.model_fields.keys() - {"namespace_prefix", "query"})
    for query in (None, "ramen"):
        plain = await store.search(NOTES, query=query)
        assert await store.search(NOTES, query=query, **nothing) == plain
