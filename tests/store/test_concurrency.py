"""Many callers at the same items, through two server processes on one database."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import asyncpg
import httpx2
import pytest
from typing_extensions import override

from app.config import Settings
from app.main import create_app
from app.providers.embedder import FakeEmbedder, TextKind, Vector
from tests.support.app import Store, running, running_with_resources
from tests.support.databases import Cluster
from tests.support.load import at_once
from tests.support.server import serving

ITEMS = "/v1/store/items"

_numbers = itertools.count(1)


class Shared:
    """One database, and the addresses of the server processes on it."""

    def __init__(self, database_url: str, addresses: list[str]) -> None:
        self.database_url = database_url
        self.addresses = addresses

    async def rows(self, sql: str, *arguments: object) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.database_url)
        try:
            await connection.execute("SELECT set_config('memoryd.root', '', false)")
            return list(await connection.fetch(sql, *arguments))
        finally:
            await connection.close()


@pytest.fixture(scope="module")
def shared(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """Two servers, the first with two processes, that started at once on an empty database."""
    logs = tmp_path_factory.mktemp("servers")
    with cluster.database() as url, ExitStack() as stack:
        environment = {"MEMORYD_DATABASE_URL": url, "MEMORYD_EMBEDDING": "fake:hashed"}
        first = serving(logs / "1", "--workers", "2", environment=environment)
        second = serving(logs / "2", environment=environment)
        servers = [stack.enter_context(server) for server in (first, second)]
        yield Shared(url, [server.url for server in servers])


@pytest.fixture
async def stores(shared: Shared) -> AsyncIterator[list[Store]]:
    """A client of each server."""
    limits = httpx2.Limits(max_connections=32, max_keepalive_connections=32)
    first, second = (
        httpx2.AsyncClient(base_url=address, limits=limits, timeout=60)
        for address in shared.addresses
    )
    async with first, second:
        yield [Store(first), Store(second)]


@pytest.fixture
def namespace() -> list[str]:
    """A namespace that no other test uses."""
    return ["concurrency", str(next(_numbers))]


async def write(store: Store, method: str, body: dict[str, Any], **headers: str) -> httpx2.Response:
    response = await store.client.request(method, ITEMS, json=body, headers=headers)
    assert response.status_code in {200, 204, 412}, response.text
    return response


async def versions(store: Store, namespace: list[str], key: str) -> list[dict[str, Any]]:
    """Return an item's whole history, oldest first."""
    params = {"namespace": ".".join(namespace), "key": key, "limit": 1000}
    response = await store.call("GET", f"{ITEMS}/versions", status=200, params=params)
    found: list[dict[str, Any]] = response.json()["versions"]
    return found[::-1]


def assert_contiguous(history: Sequence[dict[str, Any]]) -> None:
    assert [version["version"] for version in history] == list(range(1, len(history) + 1))


@pytest.mark.slow
async def test_counting_with_if_match_loses_no_update(
    stores: list[Store], namespace: list[str]
) -> None:
    await stores[0].put(namespace, "counter", {"n": 0}, index=False)
    address = {"namespace": namespace, "key": "counter"}

    async def count(number: int) -> int:
        store, successes = stores[number % 2], 0
        while successes < 4:
            read = await store.client.get(
                ITEMS, params={"namespace": ".".join(namespace), "key": "counter"}
            )
            body = {**address, "value": {"n": read.json()["value"]["n"] + 1}, "index": False}
            answer = await write(store, "PUT", body, **{"If-Match": read.headers["etag"]})
            successes += answer.status_code == 204
        return successes

    successes = sum(await at_once(8, count))
    assert (await stores[0].get(namespace, "counter"))["value"] == {"n": successes}
    history = await versions(stores[1], namespace, "counter")
    assert_contiguous(history)
    assert [version["value"]["n"] for version in history] == list(range(successes + 1))


@pytest.mark.slow
async def test_only_one_creates_or_revives_what_must_not_exist(
    stores: list[Store], namespace: list[str]
) -> None:
    async def create(number: int) -> int:
        body = {"namespace": namespace, "key": "k", "value": {"by": number}}
        answer = await write(stores[number % 2], "PUT", body, **{"If-None-Match": "*"})
        return answer.status_code

    for turn in range(1, 5):
        statuses = await at_once(12, create)
        assert sorted(statuses) == [204, *[412] * 11]
        created = await stores[0].get(namespace, "k")
        assert created["value"] == {"by": statuses.index(204)}
        await stores[0].delete(namespace, "k")
        assert_contiguous(history := await versions(stores[0], namespace, "k"))
        assert len(history) == 2 * turn


@pytest.mark.slow
async def test_patches_of_different_members_all_survive(
    stores: list[Store], namespace: list[str]
) -> None:
    await stores[0].put(namespace, "k", {"text": "ramen"})

    async def patch(number: int) -> None:
        body = {"namespace": namespace, "key": "k", "value": {f"m{number}": number}}
        assert (await write(stores[number % 2], "PATCH", body)).status_code == 200

    await at_once(12, patch)
    expected = {"text": "ramen"} | {f"m{number}": number for number in range(12)}
    assert (await stores[0].get(namespace, "k"))["value"] == expected
    history = await versions(stores[0], namespace, "k")
    assert_contiguous(history)
    assert [len(version["value"]) for version in history] == list(range(1, 14))


PASSAGES = """
SELECT items.key, items.version, value->'texts' AS texts, array_agg(text ORDER BY ordinal)
    FILTER (WHERE text IS NOT NULL) AS passages
FROM items LEFT JOIN passages USING (namespace, key)
WHERE namespace = array_to_string($1::text[], E'\\x1f') || E'\\x1f'
GROUP BY namespace, items.key
"""


@pytest.mark.slow
async def test_puts_and_deletes_of_one_key_keep_history_and_passages_in_step(
    stores: list[Store], shared: Shared, namespace: list[str]
) -> None:
    keys = ["a", "b"]

    async def put_and_delete(number: int) -> None:
        order = random.Random(number)  # noqa: S311
        for turn in range(10):
            key, store = order.choice(keys), stores[order.randrange(2)]
            if order.random() < 0.35:
                await store.delete(namespace, key)
                continue
            texts = [f"text {number} {turn} {part}" for part in range(order.randint(0, 4))]
            await store.put(namespace, key, {"texts": texts}, index=["texts[*]"])

    await at_once(10, put_and_delete)
    present = {row["key"]: row for row in await shared.rows(PASSAGES, namespace)}
    for key in keys:
        history = await versions(stores[0], namespace, key)
        assert_contiguous(history)
        assert {version["action"] for version in history} == {"put", "delete"}
        last = history[-1]
        item = await stores[0].get(namespace, key)
        assert (item and item["value"]) == last["value"]
        if last["action"] == "delete":
            assert key not in present
        else:
            assert (item["version"], present[key]["version"]) == (last["version"],) * 2
            assert (present[key]["passages"] or []) == last["value"]["texts"]
    orphans = "SELECT FROM passages LEFT JOIN items USING (namespace, key) WHERE value IS NULL"
    assert await shared.rows(orphans) == []


async def apply_in_order(store: Store, operations: list[dict[str, Any]]) -> None:
    response = await store.client.post("/v1/store/batch", json={"operations": operations})
    assert response.status_code == 200, response.text


@pytest.mark.slow
async def test_overlapping_batches_in_opposite_orders_all_succeed(
    stores: list[Store], namespace: list[str]
) -> None:
    places = {f"k{number:02}": [*namespace, str(number % 4)] for number in range(20)}
    kinds = [["put"] * 20, ["put", "delete"] * 10, ["delete", "put"] * 10]

    async def run(number: int) -> None:
        for turn in range(6):
            operations: list[dict[str, Any]] = [
                {"op": op, "namespace": space, "key": key}
                | ({"value": {"texts": [f"{number} {turn}"]}} if op == "put" else {})
                for op, (key, space) in zip(kinds[turn % 3], places.items(), strict=True)
            ]
            backward = (number + turn) % 2
            await apply_in_order(stores[number % 2], operations[:: -1 if backward else 1])

    await at_once(9, run)
    for key, space in places.items():
        assert_contiguous(await versions(stores[0], space, key))
    items = await stores[0].search(namespace, limit=100)
    keys = [*places]
    assert {item["key"] for item in items} in ({*keys}, {*keys[::2]}, {*keys[1::2]})
    assert len({item["value"]["texts"][0] for item in items}) == 1, "batches were mixed"


@pytest.mark.slow
async def test_reads_that_restart_lifetimes_do_not_deadlock(
    stores: list[Store], namespace: list[str]
) -> None:
    keys = [f"k{number:02}" for number in range(40)]
    puts = [
        {"op": "put", "namespace": namespace, "key": key, "value": {"n": n}, "ttl": 60}
        for n, key in enumerate(keys)
    ]
    await apply_in_order(stores[0], puts)

    async def read(number: int) -> None:
        store = stores[number % 2]
        for turn in range(8):
            match (number + turn) % 4:
                case 0:
                    assert len(await store.search(namespace, limit=100)) == len(keys)
                case 1:
                    found = await store.search(namespace, limit=100, query=f"{number} {turn}")
                    assert len(found) == len(keys)
                case 2:
                    gets = [{"op": "get", "namespace": namespace, "key": key} for key in keys]
                    results = await store.batch(*gets[::-1])
                    assert None not in [result["item"] for result in results]
                case _:
                    await apply_in_order(store, puts)

    await at_once(12, read)


class HeldEmbedder(FakeEmbedder):
    """Answers only while its gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()

    @override
    async def embed(self, texts: Sequence[str], *, kind: TextKind = "passage") -> list[Vector]:
        await self.gate.wait()
        return await super().embed(texts, kind=kind)


@pytest.mark.slow
async def test_a_slow_embedder_delays_nobody_who_does_not_need_it(settings: Settings) -> None:
    embedder = HeldEmbedder()
    app = create_app(settings.model_copy(update={"database_pool_size": 1}), embedder=embedder)
    async with running_with_resources(app) as (client, resources), asyncio.timeout(60):
        store, database = Store(client), resources.database
        await store.put(["a"], "present", {"text": "ramen"}, ttl=60)
        embedder.gate.clear()
        put = {"op": "put", "namespace": ["a"], "key": "batched", "value": {"text": "stew"}}
        waiting = [
            asyncio.create_task(store.put(["a"], "slow", {"text": "soup"})),
            asyncio.create_task(store.search(["a"], query="noodles")),
            asyncio.create_task(store.batch(put)),
        ]
        await asyncio.sleep(0.1)
        assert database.connections_in_use == 0
        for turn in range(2):
            assert (await store.get(["a"], "present"))["value"] == {"text": "ramen"}
            assert [item["key"] for item in await store.search(["a"])] == ["present"]
            assert await store.namespaces() == [["a"]]
            await store.put(["b"], f"plain {turn}", {"n": turn}, index=False)
            await store.delete(["b"], f"plain {turn}")
        assert await store.get(["a"], "slow") is None
        assert database.connections_in_use == 0
        assert not any(task.done() for task in waiting)
        embedder.gate.set()
        await asyncio.gather(*waiting)
        assert {item["key"] for item in await store.search(["a"])} == {"present", "slow", "batched"}


async def test_a_patch_sees_what_happened_while_it_was_embedded(settings: Settings) -> None:
    embedder = HeldEmbedder()
    app = create_app(settings, embedder=embedder)
    async with running(app) as client, asyncio.timeout(60):
        store = Store(client)

        def patch(key: str, status: int) -> asyncio.Task[httpx2.Response]:
            body = {"namespace": ["a"], "key": key, "value": {"slow": True}}
            return asyncio.create_task(store.call("PATCH", ITEMS, status=status, json=body))

        for key in ("changed", "deleted"):
            await store.put(["a"], key, {"text": "ramen"})
        embedder.gate.clear()
        merged, refused = patch("changed", 200), patch("deleted", 404)
        await asyncio.sleep(0.1)
        await store.put(["a"], "changed", {"quick": True}, index=False)
        await store.delete(["a"], "deleted")
        embedder.gate.set()
        answer = (await merged).json()
        assert (answer["value"], answer["version"]) == ({"quick": True, "slow": True}, 3)
        assert await store.get(["a"], "changed") == answer
        await refused
        history = await store.versions(["a"], "deleted")
        assert [version["action"] for version in history] == ["delete", "put"]
