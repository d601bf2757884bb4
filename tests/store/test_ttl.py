"""Lifetimes: how long items live, what restarts them, and how their end is recorded."""

import itertools
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from app.clock import FrozenClock
from app.config import Settings
from app.db.database import ALL_ROOTS, Database
from app.main import create_app
from app.providers.embedder import FakeEmbedder
from app.store.namespace_repository import prune_namespaces
from app.store.repository import SWEEPER, sweep
from tests.store.ttl_model import Model
from tests.support.app import Store, running

ALICE = ["users", "alice"]
MINUTE = timedelta(minutes=1)
MICROSECOND = timedelta(microseconds=1)

_numbers = itertools.count(1)


def moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


async def expiry(store: Store, key: str = "k") -> datetime | None:
    item = await store.get(ALICE, key, refresh_ttl="false", omit_expired="false")
    return moment(item["expires_at"])


async def is_there(store: Store, key: str = "k") -> bool:
    return await store.get(ALICE, key, refresh_ttl="false") is not None


@pytest.mark.parametrize(
    ("lifetime", "microseconds"),
    [
        ({"ttl": 1}, 60_000_000),
        ({"ttl": 0.0123456}, 740_736),
        ({"ttl": 1e-6}, 60),
        ({"ttl_seconds": 90.000001}, 90_000_001),
        ({"ttl": None, "ttl_seconds": 2}, 2_000_000),
    ],
)
async def test_lifetimes_count_to_the_microsecond(
    store: Store, clock: FrozenClock, lifetime: dict[str, Any], microseconds: int
) -> None:
    await store.put(ALICE, "k", {"n": 1}, **lifetime)
    assert await expiry(store) == clock.now() + timedelta(microseconds=microseconds)
    clock.advance(timedelta(microseconds=microseconds - 1))
    assert await is_there(store)
    clock.advance(MICROSECOND)
    assert not await is_there(store)


async def test_the_default_lifetime_is_for_puts_that_say_nothing(
    settings: Settings, clock: FrozenClock
) -> None:
    chosen = settings.model_copy(update={"default_ttl_minutes": 2.5})
    async with running(create_app(chosen, embedder=FakeEmbedder(), clock=clock)) as client:
        store = Store(client)
        await store.put(ALICE, "absent", {})
        await store.put(ALICE, "null", {}, ttl=None)
        await store.put(ALICE, "null seconds", {}, ttl_seconds=None)
        await store.put(ALICE, "own", {}, ttl=1)
        batched = {"op": "put", "namespace": ALICE, "value": {}}
        await store.batch({**batched, "key": "b"}, {**batched, "key": "b null", "ttl": None})
        default = clock.now() + timedelta(seconds=150)
        assert await expiry(store, "absent") == await expiry(store, "b") == default
        for key in ("null", "null seconds", "b null"):
            assert await expiry(store, key) is None
        assert await expiry(store, "own") == clock.now() + MINUTE


async def read(store: Store, way: str, **refresh: bool) -> None:
    if way == "get":
        query = {name: str(value).lower() for name, value in refresh.items()}
        assert await store.get(ALICE, "k", **query) is not None
    elif way == "batch get":
        [got] = await store.batch({"op": "get", "namespace": ALICE, "key": "k", **refresh})
        assert got["item"]["key"] == "k"
    elif way == "batch search":
        [found] = await store.batch({"op": "search", "namespace_prefix": ALICE, **refresh})
        assert len(found["found"]["items"]) == 1
    else:
        query = {"query": "ramen"} if way == "search by meaning" else {}
        assert len(await store.search(ALICE, **query, **refresh)) == 1


WAYS = ["get", "search", "search by meaning", "batch get", "batch search"]


@pytest.mark.parametrize("setting", [True, False])
async def test_reading_restarts_a_lifetime_and_changes_nothing_else(
    settings: Settings, clock: FrozenClock, setting: bool
) -> None:
    chosen = settings.model_copy(update={"refresh_on_read": setting})
    async with running(create_app(chosen, embedder=FakeEmbedder(), clock=clock)) as client:
        store = Store(client)
        for way in WAYS:
            for refresh in ({}, {"refresh_ttl": not setting}):
                await store.put(ALICE, "k", {"text": "ramen"}, ttl=1.5)
                before = await store.get(ALICE, "k", refresh_ttl="false")
                clock.advance(MINUTE)
                await read(store, way, **refresh)
                restarts = refresh.get("refresh_ttl", setting)
                alive_from = clock.now() if restarts else clock.now() - MINUTE
                after = await store.get(ALICE, "k", refresh_ttl="false")
                expires_at = (alive_from + timedelta(seconds=90)).isoformat()
                assert after == {**before, "expires_at": expires_at}, way
        assert len(await store.versions(ALICE, "k")) == 2 * len(WAYS)


async def test_only_what_was_found_lives_longer(store: Store, clock: FrozenClock) -> None:
    for key in ("a", "b"):
        await store.put(ALICE, key, {"kind": key}, ttl=2)
    end = clock.now() + 2 * MINUTE
    clock.advance(MINUTE)
    await store.search(ALICE, filter={"kind": "b"})
    assert [await expiry(store, key) for key in ("a", "b")] == [end, end + MINUTE]


async def test_expired_items_are_invisible_everywhere(store: Store, clock: FrozenClock) -> None:
    await store.put(ALICE, "k", {"text": "ramen"}, ttl=1)
    await store.put(["users", "bob"], "other", {"text": "ramen"})
    clock.advance(MINUTE)
    assert await store.get(ALICE, "k") is None
    assert await store.search(ALICE) == []
    assert await store.search(ALICE, query="ramen") == []
    assert [item["key"] for item in await store.search([], query="ramen")] == ["other"]
    assert await store.namespaces() == [["users", "bob"]]
    assert await store.namespaces(max_depth=1) == [["users"]]
    results = await store.batch(
        {"op": "get", "namespace": ALICE, "key": "k"},
        {"op": "search", "namespace_prefix": ALICE},
        {"op": "search", "namespace_prefix": ALICE, "query": "ramen"},
        {"op": "list_namespaces", "counts": True},
    )
    none = {"op": "search", "found": {"items": [], "next_cursor": None}}
    listed = {"namespaces": [["users", "bob"]], "counts": [1]}
    assert results == [
        {"op": "get", "item": None},
        none,
        none,
        {"op": "list_namespaces", "listed": listed},
    ]


async def test_expired_items_are_shown_on_request_and_stay_expired(
    store: Store, clock: FrozenClock
) -> None:
    await store.put(ALICE, "k", {"text": "ramen"}, ttl=1)
    end = clock.now() + MINUTE
    clock.advance(MINUTE)
    shown = {"omit_expired": "false", "refresh_ttl": "true"}
    assert (await store.get(ALICE, "k", **shown))["value"] == {"text": "ramen"}
    assert await store.get(ALICE, "k", refresh_ttl="true") is None
    for body in ({}, {"query": "ramen"}):
        assert await store.search(ALICE, refresh_ttl=True, **body) == []
        response = await store.call(
            "POST",
            "/v1/store/items/search?omit_expired=false",
            status=200,
            json={"namespace_prefix": ALICE, "refresh_ttl": True, **body},
        )
        assert [found["key"] for found in response.json()["items"]] == ["k"]
    await store.batch(
        {"op": "get", "namespace": ALICE, "key": "k", "refresh_ttl": True},
        {"op": "search", "namespace_prefix": ALICE, "refresh_ttl": True},
    )
    assert await expiry(store) == end
    assert not await is_there(store)


async def test_a_patch_restarts_a_lifetime_that_has_not_ended(
    store: Store, clock: FrozenClock
) -> None:
    await store.put(ALICE, "k", {"n": 1}, ttl=2)
    clock.advance(MINUTE)
    body = {"namespace": ALICE, "key": "k", "value": {"n": 2}}
    response = await store.call("PATCH", "/v1/store/items", status=200, json=body)
    assert moment(response.json()["expires_at"]) == await expiry(store) == clock.now() + 2 * MINUTE
    clock.advance(2 * MINUTE)
    await store.call("PATCH", "/v1/store/items", status=404, json=body)
    assert len(await store.versions(ALICE, "k")) == 2


async def test_a_restored_item_has_no_lifetime(store: Store, clock: FrozenClock) -> None:
    await store.put(ALICE, "k", {"n": 1}, ttl=1)
    clock.advance(2 * MINUTE)
    body = {"namespace": ALICE, "key": "k", "version": 1}
    response = await store.call("POST", "/v1/store/items/restore", status=200, json=body)
    assert response.json()["expires_at"] is None
    assert moment(response.json()["created_at"]) == clock.now()


async def test_as_of_sees_an_item_until_it_expired(store: Store, clock: FrozenClock) -> None:
    await store.put(ALICE, "k", {"n": 1}, ttl=1)
    end = clock.now() + MINUTE
    clock.advance(5 * MINUTE)
    for _ in range(2):
        before = await store.get(ALICE, "k", as_of=(end - MICROSECOND).isoformat())
        assert before["value"] == {"n": 1}
        assert await store.get(ALICE, "k", as_of=end.isoformat()) is None
        await store.delete(ALICE, "k")


async def test_the_sweeper_removes_exactly_what_has_expired(
    store: Store, clock: FrozenClock, database: Database
) -> None:
    for key, minutes in (("gone", 1), ("just gone", 2), ("stays", 2.0001), ("for ever", None)):
        await store.put(ALICE, key, {"text": key}, ttl=minutes)
    end = clock.now() + 2 * MINUTE
    clock.advance(2 * MINUTE)
    assert await sweep(database, clock.now()) == 2
    assert await sweep(database, clock.now()) == 0
    shown = await store.call(
        "POST", "/v1/store/items/search?omit_expired=false", status=200, json={}
    )
    assert {item["key"] for item in shown.json()["items"]} == {"stays", "for ever"}
    async with database.connection(ALL_ROOTS) as connection:
        rows = await connection.fetch("SELECT DISTINCT key FROM passages")
    assert {row["key"] for row in rows} == {"stays", "for ever"}
    ended, put = await store.versions(ALICE, "just gone")
    assert (ended["action"], ended["version"], ended["actor"]) == ("expire", 2, SWEEPER)
    assert (ended["value"], moment(ended["recorded_at"])) == (None, end)
    assert put["action"] == "put"


async def test_the_sweeper_goes_on_until_nothing_expired_is_left(
    store: Store, clock: FrozenClock, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.store.repository.SWEPT_ITEMS", 2)
    for number in range(5):
        await store.put(ALICE, str(number), {}, ttl=1)
    clock.advance(MINUTE)
    assert await sweep(database, clock.now()) == 5


async def test_the_sweeper_does_not_wait_for_a_locked_item(
    store: Store, clock: FrozenClock, database: Database
) -> None:
    await store.put(ALICE, "locked", {}, ttl=1)
    await store.put(ALICE, "free", {}, ttl=1)
    clock.advance(MINUTE)
    async with database.transaction(ALL_ROOTS) as connection:
        await connection.execute("SET LOCAL lock_timeout = '1s'")
        await connection.execute("SELECT FROM items WHERE key = 'locked' FOR UPDATE")
        assert await sweep(database, clock.now()) == 1
    assert await sweep(database, clock.now()) == 1


async def test_pruning_forgets_only_namespaces_that_hold_nothing(
    store: Store, clock: FrozenClock, database: Database
) -> None:
    await store.put(["a", "swept"], "k", {}, ttl=1)
    await store.put(["a", "deleted"], "k", {})
    await store.put(["a", "kept"], "k", {})
    await store.delete(["a", "deleted"], "k")
    clock.advance(MINUTE)
    assert await prune_namespaces(database) == 1
    await sweep(database, clock.now())
    assert await prune_namespaces(database) == 1
    async with database.connection(ALL_ROOTS) as connection:
        rows = await connection.fetch("SELECT labels FROM namespaces")
    assert [row["labels"] for row in rows] == [["a", "kept"]]
    await store.put(["a", "swept"], "k", {})
    assert await store.namespaces() == [["a", "kept"], ["a", "swept"]]


class Comparison:
    """One run of operations on the server and on the model."""

    def __init__(self, store: Store, clock: FrozenClock, database: Database) -> None:
        self._store = store
        self._clock = clock
        self._database = database
        self._namespace = ["model", str(next(_numbers))]
        self._model = Model()
        self._values = itertools.count(1)

    async def put(self, key: str, seconds: float | None) -> None:
        value = next(self._values)
        await self._store.put(self._namespace, key, {"n": value}, ttl_seconds=seconds)
        ttl = None if seconds is None else timedelta(seconds=seconds)
        self._model.put(key, value, ttl, self._clock.now())

    async def delete(self, key: str, _: object) -> None:
        await self._store.delete(self._namespace, key)
        self._model.delete(key, self._clock.now())

    async def get(self, key: str, refresh: bool) -> None:
        item = await self._store.get(self._namespace, key, refresh_ttl=str(refresh).lower())
        expected = self._model.visible(key, self._clock.now())
        assert (item and item["value"]["n"]) == (expected and expected.value)
        if refresh:
            self._model.refresh(key, self._clock.now())

    async def search(self, _: str, refresh: bool) -> None:
        found = await self._store.search(self._namespace, refresh_ttl=refresh)
        now = self._clock.now()
        keys = {key for key in self._model.entries if self._model.visible(key, now)}
        assert {item["key"] for item in found} == keys
        for key in keys if refresh else ():
            self._model.refresh(key, now)

    async def advance(self, _: str, seconds: float) -> None:
        self._clock.advance(timedelta(seconds=seconds))

    async def sweep(self, _: str, __: object) -> None:
        now = self._clock.now()
        await sweep(self._database, now)
        for key in list(self._model.entries):
            self._model.bury(key, now)

    async def agree(self) -> None:
        now = self._clock.now()
        for key in self._model.history:
            await self._agree_on_item(key, now)
            versions = await self._store.versions(self._namespace, key)
            told = [(v["action"], moment(v["recorded_at"])) for v in reversed(versions)]
            assert told == self._model.history[key]
            numbers = [v["version"] for v in reversed(versions)]
            assert numbers == list(range(1, len(numbers) + 1))
        present = any(self._model.visible(key, now) for key in self._model.entries)
        listed = await self._store.namespaces(prefix=self._namespace)
        assert listed == ([self._namespace] if present else [])

    async def _agree_on_item(self, key: str, now: datetime) -> None:
        item = await self._store.get(self._namespace, key, refresh_ttl="false")
        entry = self._model.visible(key, now)
        if entry is None:
            assert item is None
            return
        assert (item["value"], item["version"]) == ({"n": entry.value}, entry.version)
        times = [moment(item[name]) for name in ("created_at", "updated_at", "expires_at")]
        assert times == [entry.created_at, entry.updated_at, entry.expires_at]


keys = st.sampled_from(["a", "b"])
lifetimes = st.sampled_from([None, 0.5, 1.0, 2.000001])
pauses = st.sampled_from([0.499999, 0.5, 1.0, 1.000001])
operations = st.one_of(
    st.tuples(st.just("put"), keys, lifetimes),
    st.tuples(st.just("put"), keys, lifetimes),
    st.tuples(st.just("delete"), keys, st.none()),
    st.tuples(st.just("get"), keys, st.booleans()),
    st.tuples(st.just("search"), keys, st.booleans()),
    st.tuples(st.just("advance"), keys, pauses),
    st.tuples(st.just("advance"), keys, pauses),
    st.tuples(st.just("sweep"), keys, st.none()),
)


@pytest.mark.slow
@hypothesis_settings(max_examples=30)
@given(sequence=st.lists(operations, min_size=3, max_size=20))
async def test_random_lives_agree_with_a_model(
    store: Store,
    clock: FrozenClock,
    database: Database,
    sequence: list[tuple[str, str, Any]],
) -> None:
    comparison = Comparison(store, clock, database)
    for name, key, argument in sequence:
        await getattr(comparison, name)(key, argument)
        await comparison.agree()
