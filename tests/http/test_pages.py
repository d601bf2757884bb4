"""Answers have a budget of bytes: pages end early with a cursor, batches leave operations out."""

import json
from typing import Any

import asyncpg
import httpx2
import pytest

from app.db.pages import PAGE_BYTES, TOOL_BYTES
from tests.support.app import Store

VALUE_BYTES = 1_000_000
BIG = {"text": "x" * VALUE_BYTES}
FITTING = PAGE_BYTES // VALUE_BYTES


@pytest.fixture(scope="module")
async def filled(shared_client: httpx2.AsyncClient) -> Store:
    """A store of ten items of almost 1 MiB, of which little is embedded."""
    store = Store(shared_client)
    for number in range(10):
        value = {**BIG, "name": f"ramen {number}"}
        await store.put(["big"], f"k{number}", value, index=["name"])
    return store


async def pages(store: Store, body: dict[str, Any]) -> list[list[str]]:
    """Return the keys of every page, as a client that follows the cursors reads them."""
    found: list[list[str]] = []
    cursor = None
    while cursor or not found:
        sent = {"namespace_prefix": ["big"], "limit": 100, **body}
        sent |= {"cursor": cursor} if cursor else {}
        answer = await store.call("POST", "/v1/store/items/search", status=200, json=sent)
        assert len(answer.content) < PAGE_BYTES + 20_000
        members = answer.json()
        found.append([item["key"] for item in members["items"]])
        cursor = members["next_cursor"]
    return found


class TestSearch:
    @pytest.mark.parametrize("body", [{}, {"query": "ramen"}, {"query": "ramen", "mode": "text"}])
    async def test_a_page_ends_early_and_the_next_goes_on(
        self, filled: Store, body: dict[str, Any]
    ) -> None:
        found = await pages(filled, body)
        assert [len(page) for page in found] == [FITTING, FITTING, 2]
        assert len({key for page in found for key in page}) == 10

    async def test_small_items_are_one_page(self, store: Store) -> None:
        for number in range(10):
            await store.put(["big"], f"k{number}", {"n": number})
        assert [len(page) for page in await pages(store, {})] == [10]
        assert [len(page) for page in await pages(store, {"limit": 4})] == [4, 4, 2]

    async def test_a_total_counts_what_did_not_fit(self, filled: Store) -> None:
        body = {"namespace_prefix": ["big"], "limit": 100, "with_total": True}
        answer = await filled.call("POST", "/v1/store/items/search", status=200, json=body)
        assert (len(answer.json()["items"]), answer.json()["total"]) == (FITTING, 10)


class TestLists:
    async def test_versions(self, store: Store) -> None:
        for number in range(6):
            await store.put(["big"], "k", {**BIG, "n": number}, index=False)
        params: dict[str, Any] = {"namespace": "big", "key": "k"}
        first = (
            await store.call("GET", "/v1/store/items/versions", status=200, params=params)
        ).json()
        params["before"] = first["next_cursor"]
        rest = (
            await store.call("GET", "/v1/store/items/versions", status=200, params=params)
        ).json()
        versions = [row["version"] for row in first["versions"] + rest["versions"]]
        assert (versions, len(first["versions"])) == ([6, 5, 4, 3, 2, 1], FITTING)
        assert rest["next_cursor"] is None

    async def test_messages(self, client: httpx2.AsyncClient) -> None:
        long = 390_000
        for _ in range(3):
            messages = [{"role": "user", "content": "x" * long} for _ in range(5)]
            answer = await client.post(
                "/v1/threads/t/messages", json={"namespace": ["big"], "messages": messages}
            )
            assert answer.status_code == 202, answer.text
        positions: list[int] = []
        cursor: int | None = 0
        while cursor is not None:
            page = (await client.get("/v1/threads/t/messages", params={"cursor": cursor})).json()
            assert len(page["messages"]) <= PAGE_BYTES // long
            positions += [row["position"] for row in page["messages"]]
            cursor = page["next_cursor"]
        assert positions == list(range(15))

    async def test_namespaces(self, store: Store, database_url: str) -> None:
        connection = await asyncpg.connect(database_url)
        labels = ["x" * 128] * 15
        spaces = ["\x1f".join([f"{n:05}", *labels]) + "\x1f" for n in range(3000)]
        await connection.execute("SELECT set_config('memoryd.root', '', false)")
        await connection.execute(
            "INSERT INTO namespaces (namespace) SELECT unnest($1::text[])", spaces
        )
        await connection.execute(
            "INSERT INTO items (namespace, key, value, version, created_at, updated_at) "
            "SELECT space, 'k', '{}', 1, now(), now() FROM unnest($1::text[]) AS t (space)",
            spaces,
        )
        await connection.close()
        body = {"limit": 10_000}
        first = (await store.call("POST", "/v1/store/namespaces", status=200, json=body)).json()
        assert PAGE_BYTES * 0.9 < len(json.dumps(first)) < PAGE_BYTES * 1.1
        body["offset"] = first["next_offset"]
        rest = (await store.call("POST", "/v1/store/namespaces", status=200, json=body)).json()
        assert len(first["namespaces"]) + len(rest["namespaces"]) == 3000
        assert "next_offset" not in rest


class TestBatch:
    async def test_what_did_not_fit_says_so_in_its_place(self, filled: Store) -> None:
        gets = [{"op": "get", "namespace": ["big"], "key": f"k{n}"} for n in range(10)]
        missing = {"op": "get", "namespace": ["big"], "key": "none"}
        results = await filled.batch(*gets, missing)
        fitting = results[: FITTING + 1]  # the last one begins before the end
        assert [result["item"]["key"] for result in fitting] == [
            f"k{n}" for n in range(FITTING + 1)
        ]
        left_out = results[FITTING + 1 : 10]
        assert {r["problem"]["code"] for r in left_out} == {"response_too_large"}
        assert left_out[0]["problem"]["detail"].startswith(f"operations[{FITTING + 1}]: ")
        assert results[10] == {"op": "get", "item": None}

    async def test_a_thousand_searches_answer_within_the_budget(self, filled: Store) -> None:
        search = {"op": "search", "namespace_prefix": ["big"], "limit": 2}
        put = {"op": "put", "namespace": ["small"], "key": "new", "value": {}}
        answer = await filled.call(
            "POST", "/v1/store/batch", status=200, json={"operations": [search] * 999 + [put]}
        )
        assert len(answer.content) < PAGE_BYTES + VALUE_BYTES + 999 * 450
        results = answer.json()["results"]
        found = [result["found"]["items"] for result in results if "found" in result]
        assert sum(map(len, found)) == FITTING + 1
        assert results[998]["problem"]["code"] == "response_too_large"
        assert results[999] == {"op": "put"}
        assert (await filled.get(["small"], "new"))["value"] == {}

    async def test_an_item_left_out_is_not_refreshed_or_used(self, store: Store) -> None:
        for number in range(6):
            await store.put(["big"], f"k{number}", BIG, index=False, ttl=60)
        before = await store.get(["big"], "k5", refresh_ttl=False)
        gets = [{"op": "get", "namespace": ["big"], "key": f"k{n}"} for n in range(6)]
        assert (await store.batch(*gets))[5]["problem"]["code"] == "response_too_large"
        after = await store.get(["big"], "k5", refresh_ttl=False)
        assert after["expires_at"] == before["expires_at"]


async def test_a_tool_answers_a_model_with_little(filled: Store) -> None:
    body = {"arguments": {"query": "ramen", "limit": 10}, "namespace": ["big"]}
    answer = await filled.call("POST", "/v1/tools/search_memory", status=200, json=body)
    assert VALUE_BYTES < len(answer.content) < 2 * VALUE_BYTES + TOOL_BYTES * 2
