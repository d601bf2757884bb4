"""Versions, restore and reading the past."""

from datetime import timedelta
from typing import Any

import httpx2

from app.clock import FrozenClock
from tests.support.app import Store

ALICE = ["users", "alice"]


async def restore(store: Store, key: str, version: int, *, status: int = 200) -> Any:
    body = {"namespace": ALICE, "key": key, "version": version}
    response = await store.call("POST", "/v1/store/items/restore", status=status, json=body)
    return response.json()


async def test_every_state_is_kept_with_its_action_and_actor(
    store: Store, clock: FrozenClock
) -> None:
    await store.put(ALICE, "k", {"n": 1}, importance=0.3)
    clock.advance(timedelta(minutes=1))
    await store.call(
        "PATCH",
        "/v1/store/items",
        status=200,
        json={"namespace": ALICE, "key": "k", "value": {"m": 2}},
    )
    clock.advance(timedelta(minutes=1))
    await store.delete(ALICE, "k")
    history = [
        (v["version"], v["action"], v["value"], v["importance"], v["actor"], v["recorded_at"])
        for v in await store.versions(ALICE, "k")
    ]
    assert history == [
        (3, "delete", None, None, "anonymous", "2026-01-01T12:02:00+00:00"),
        (2, "patch", {"n": 1, "m": 2}, 0.3, "anonymous", "2026-01-01T12:01:00+00:00"),
        (1, "put", {"n": 1}, 0.3, "anonymous", "2026-01-01T12:00:00+00:00"),
    ]


async def test_history_is_paged_from_the_newest(store: Store, client: httpx2.AsyncClient) -> None:
    for n in range(5):
        await store.put(ALICE, "k", {"n": n})
    address: dict[str, str | int] = {"namespace": "users.alice", "key": "k", "limit": 2}
    first = (await client.get("/v1/store/items/versions", params=address)).json()["versions"]
    second = (await client.get("/v1/store/items/versions", params={**address, "before": 4})).json()[
        "versions"
    ]
    assert [v["version"] for v in first] == [5, 4]
    assert [v["version"] for v in second] == [3, 2]
    assert await store.versions(ALICE, "never") == []


async def test_restoring_writes_the_old_state_as_a_new_version(store: Store) -> None:
    await store.put(ALICE, "k", {"text": "first"}, importance=0.9, index=["text"])
    await store.put(ALICE, "k", {"text": "second"})
    restored = await restore(store, "k", 1)
    assert restored == await store.get(ALICE, "k")
    assert (restored["version"], restored["value"], restored["importance"]) == (
        3,
        {"text": "first"},
        0.9,
    )
    assert [v["action"] for v in await store.versions(ALICE, "k")] == ["restore", "put", "put"]
    assert (await store.search(ALICE, query="first", mode="vector"))[0]["score"] > 0.99


async def test_a_deleted_item_comes_back_under_a_version_of_its_own(store: Store) -> None:
    await store.put(ALICE, "k", {"n": 1})
    await store.delete(ALICE, "k")
    assert (await restore(store, "k", 1))["version"] == 3
    assert (await store.get(ALICE, "k"))["value"] == {"n": 1}


async def test_only_a_version_with_a_value_can_be_restored(store: Store) -> None:
    await store.put(ALICE, "k", {"n": 1})
    await store.delete(ALICE, "k")
    assert (await restore(store, "k", 7, status=404))["code"] == "version_not_found"
    assert (await restore(store, "k", 2, status=409))["code"] == "version_has_no_value"


async def test_as_of_reads_the_state_of_that_time(store: Store, clock: FrozenClock) -> None:
    moments = []
    for n in range(3):
        clock.advance(timedelta(minutes=1))
        await store.put(ALICE, "k", {"n": n})
        moments.append(clock.now())
    clock.advance(timedelta(minutes=1))
    await store.delete(ALICE, "k")

    async def value_at(moment: Any) -> Any:
        item = await store.get(ALICE, "k", as_of=moment.isoformat())
        return item and (item["value"]["n"], item["version"], item["created_at"])

    born = moments[0].isoformat()
    assert await value_at(moments[0] - timedelta(seconds=1)) is None
    assert await value_at(moments[0]) == (0, 1, born)
    assert await value_at(moments[1] + timedelta(seconds=59)) == (1, 2, born)
    assert await value_at(moments[2]) == (2, 3, born)
    assert await value_at(clock.now()) is None
