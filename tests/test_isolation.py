"""What a tenant does never shows or changes what lies outside its root."""

import asyncio
import itertools
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import asyncpg
import httpx2
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from app.auth.access import ALL_GRANTED
from app.auth.service import KeyService
from app.clock import FrozenClock
from app.config import Settings
from app.db.database import ALL_ROOTS, Database
from app.main import create_app
from app.namespaces import to_stored
from app.providers.embedder import FakeEmbedder
from tests.support.app import Store, running

pytestmark = pytest.mark.slow

ROOTS = [
    ["acme"],
    ["acme2"],
    ["acme", "inner"],
    ["ACME"],
    ["acm"],
    ["acme "],
    ["acme\t"],
    ["acme!"],
    ["acme\U0010ffff"],
    ["*"],
]
"""Neighbors of one another in every order that text can be sorted in; one lies inside another."""

PLACES = [["users"], ["users", "alice"], ["inner", "users"]]
SECRET = "the secret of "

_numbers = itertools.count(1)


@dataclass
class Tenant:
    """The holder of a key, and everything that a test may compare with."""

    root: list[str]
    store: Store

    def text(self, namespace: list[str]) -> str:
        """Return the text of an item, which says where the item really is."""
        return SECRET + json.dumps(self.root + namespace)

    def is_shown(self, text: str) -> bool:
        """Check that a text comes from inside the root."""
        where: list[str] = json.loads(text.removeprefix(SECRET))
        return where[: len(self.root)] == self.root

    async def put(self, namespace: list[str], key: str, **more: Any) -> None:
        await self.store.put(namespace, key, {"text": self.text(namespace)}, **more)


@dataclass
class World:
    """A server with its tenants; the operator's key has no root."""

    database: Database
    operator: Tenant
    tenants: list[Tenant]

    async def rows(self, *, outside: Tenant) -> list[tuple[str, str]]:
        """Return every stored row outside the tenant's root."""
        low = to_stored(outside.root)
        found = []
        async with self.database.connection(ALL_ROOTS) as connection:
            # Uses are written down late: those of a tenant before would count against this one.
            for table in set(TABLES) - {"item_usage"}:
                every = await connection.fetch(f"SELECT namespace, {table}::text row FROM {table}")
                found += [
                    (table, row["row"]) for row in every if not row["namespace"].startswith(low)
                ]
        return sorted(found)


async def hold_key(client: httpx2.AsyncClient, keys: KeyService, root: list[str]) -> Tenant:
    token = await keys.create("key", root=root, grants=ALL_GRANTED, expires_at=None)
    return Tenant(root, Store(client, {"x-api-key": str(token)}))


searched_exactly_and_by_index = pytest.mark.parametrize("world", [20_000, 0], indirect=True)


@pytest.fixture
async def world(
    request: pytest.FixtureRequest, settings: Settings, clock: FrozenClock
) -> AsyncIterator[World]:
    """A server with one item of each tenant in each place; it searches few passages exactly."""
    largest = getattr(request, "param", 20_000)
    chosen = settings.model_copy(update={"exact_search_passages": largest})
    database = await Database.open(str(settings.database_url), pool_size=1)
    async with running(create_app(chosen, embedder=FakeEmbedder(), clock=clock)) as client:
        keys = KeyService(database, clock)
        tenants = [await hold_key(client, keys, root) for root in ROOTS]
        for tenant in tenants:
            for place in PLACES:
                await tenant.put(place, "k", ttl=60)
        yield World(database, await hold_key(client, keys, []), tenants)
    await database.close()


def secrets(answer: Any) -> list[str]:
    """Return every secret in an answer, however deep."""
    if isinstance(answer, dict):
        return [text for member in answer.values() for text in secrets(member)]
    if isinstance(answer, list):
        return [text for member in answer for text in secrets(member)]
    return [answer] if isinstance(answer, str) and answer.startswith(SECRET) else []


READS: list[dict[str, Any]] = [
    {"op": "search", "limit": 1000},
    {"op": "search", "limit": 1000, "query": SECRET, "refresh_ttl": True},
    {"op": "search", "limit": 1000, "query": SECRET, "namespace_prefix": ["users"]},
    {"op": "search", "limit": 1000, "namespace_prefix": ["users", "alice"], "refresh_ttl": True},
    {"op": "search", "filter": {"$meta": {"key": "k"}}},
    {"op": "search", "filter": {"$meta": {"created_at": {"$gt": "2000-01-01T00:00:00Z"}}}},
    {"op": "search", "filter": {"$or": [{"text": "x"}, {"n": {"$exists": False}}]}},
    {"op": "search", "filter": {"$not": {"n": 77}}, "query": SECRET},
    {"op": "get", "namespace": ["users", "alice"], "key": "k", "refresh_ttl": True},
]


@searched_exactly_and_by_index
async def test_reads_show_only_what_is_inside_the_root(world: World) -> None:
    for tenant, read in itertools.product(world.tenants, READS):
        before = await world.rows(outside=tenant)
        results = await tenant.store.batch(read)
        if read["op"] == "search":
            body = {name: value for name, value in read.items() if name != "op"}
            prefix = body.pop("namespace_prefix", [])
            results += await tenant.store.search(prefix, **body)
        found = secrets(results)
        assert tenant.text(["users", "alice"]) in found
        assert all(tenant.is_shown(text) for text in found)
        assert await world.rows(outside=tenant) == before


async def test_labels_are_relative_to_the_root(world: World) -> None:
    for tenant in world.tenants:
        found = await tenant.store.search([], limit=1000)
        for item in found:
            assert item["value"]["text"] == tenant.text(item["namespace"])
        others = 2 if tenant.root == ["acme"] else 0  # of the tenant inside it
        assert len(found) == len(PLACES) + others
        address = {"namespace": ["users", "alice"], "key": "k"}
        for method, path, more in (
            ("PATCH", "/v1/store/items", {"value": {"n": 1}}),
            ("POST", "/v1/store/items/restore", {"version": 1}),
        ):
            response = await tenant.store.call(method, path, status=200, json=address | more)
            assert response.json()["namespace"] == ["users", "alice"]
        item = await tenant.store.get(["users", "alice"], "k")
        assert item["namespace"] == ["users", "alice"]


PATTERNS: list[tuple[dict[str, Any], list[list[str]]]] = [
    ({}, [["inner", "users"], ["users"], ["users", "alice"]]),
    ({"prefix": ["*"]}, [["inner", "users"], ["users"], ["users", "alice"]]),
    ({"prefix": ["*", "*"]}, [["inner", "users"], ["users", "alice"]]),
    ({"prefix": ["*", "users"]}, [["inner", "users"]]),
    ({"prefix": ["acme2"]}, []),
    ({"prefix": ["acme2", "users"]}, []),
    ({"suffix": ["users"]}, [["inner", "users"], ["users"]]),
    ({"suffix": ["*", "users"]}, [["inner", "users"]]),
    ({"suffix": ["*"]}, [["inner", "users"], ["users"], ["users", "alice"]]),
    ({"suffix": ["acme2", "users"]}, []),
    ({"suffix": ["acme2", "*"]}, []),
    ({"suffix": ["*", "*", "*"]}, []),
    ({"max_depth": 1}, [["inner"], ["users"]]),
    ({"prefix": ["*"], "suffix": ["*"], "max_depth": 1}, [["inner"], ["users"]]),
]


async def test_namespaces_are_listed_from_inside_the_root_alone(world: World) -> None:
    for tenant, (pattern, listed) in itertools.product(world.tenants, PATTERNS):
        if tenant.root == ["acme"]:
            continue  # the tenant inside it adds to its list
        assert await tenant.store.namespaces(**pattern) == listed
        [result] = await tenant.store.batch({"op": "list_namespaces", "counts": True, **pattern})
        assert result["listed"]["namespaces"] == listed
        cut = [2 if labels == ["users"] else 1 for labels in listed]
        assert result["listed"]["counts"] == (cut if "max_depth" in pattern else [1] * len(listed))


async def test_other_tenants_items_cannot_be_addressed(world: World, clock: FrozenClock) -> None:
    clock.advance(timedelta(minutes=1))
    for tenant, other in itertools.permutations(world.tenants, 2):
        if other.root[: len(tenant.root)] == tenant.root:
            continue
        namespace = [*other.root, "users"]
        address = {"namespace": namespace, "key": "k"}
        query = {"namespace": json.dumps(namespace), "key": "k"}
        store, before = tenant.store, await world.rows(outside=tenant)
        for more in ({}, {"as_of": clock.now().isoformat()}, {"omit_expired": "false"}):
            response = await store.call("GET", "/v1/store/items", status=200, params=query | more)
            assert response.json() is None
        response = await store.call("GET", "/v1/store/items/versions", status=200, params=query)
        assert response.json() == {"versions": [], "next_cursor": None}
        body: dict[str, Any] = {**address, "value": {"n": 1}}
        await store.call("PATCH", "/v1/store/items", status=404, json=body)
        body = {**address, "version": 1}
        await store.call("POST", "/v1/store/items/restore", status=404, json=body)
        await store.delete(namespace, "k")
        results = await store.batch(
            {"op": "get", **address}, {"op": "delete", **address}, atomic=False
        )
        assert results == [{"op": "get", "item": None}, {"op": "delete"}]
        assert await world.rows(outside=tenant) == before


async def submit(tenant: Tenant) -> str:
    """Store a manager and a prompt, begin a thread and submit a job; return the job's id."""
    call, text = tenant.store.call, tenant.text(["users"])
    config = {"namespace": ["users"], "strategy": "verbatim", "instructions": text}
    await call("PUT", "/v1/managers/notes", status=201, json=config)
    await call("PUT", "/v1/prompts/support", status=201, json={"text": text})
    body = {"manager": "notes", "messages": [{"role": "user", "content": text}]}
    await call("POST", "/v1/threads/chat/messages", status=202, json=body)
    headers = {"Idempotency-Key": "same-for-all"}
    response = await call("POST", "/v1/jobs/extract", status=202, json=body, headers=headers)
    return str(response.json()["id"])


JOB_ROUTES = [
    ("GET", ""),
    ("GET", "/events"),
    ("GET", "/changes"),
    *(("POST", f"/{verb}") for verb in ("cancel", "retry", "apply", "discard", "undo")),
]

SEEN = (
    "/v1/managers",
    "/v1/threads/chat/messages",
    "/v1/prompts/support",
    "/v1/prompts",
    "/v1/threads/chat",
)


async def test_what_is_not_an_item_is_seen_from_inside_the_root_alone(world: World) -> None:
    jobs = {tuple(tenant.root): await submit(tenant) for tenant in world.tenants}
    assert len(set(jobs.values())) == len(world.tenants)
    for tenant in world.tenants:
        before = await world.rows(outside=tenant)
        seen = [(await tenant.store.call("GET", path, status=200)).json() for path in SEEN]
        assert secrets(seen) == [tenant.text(["users"])] * 3
        assert seen[-1]["namespace"] == ["users"]
        assert [prompt["labels"] for prompt in seen[-2]["prompts"]] == [{"production": 1}]
        listed = (await tenant.store.call("GET", "/v1/jobs", status=200)).json()["jobs"]
        inside = {
            job: root for root, job in jobs.items() if list(root[: len(tenant.root)]) == tenant.root
        }
        extracting = {job["id"]: job for job in listed if job["kind"] == "extract"}
        assert extracting.keys() == inside.keys()
        for job, root in inside.items():
            assert extracting[job]["namespace"] == [*root[len(tenant.root) :], "users"]
        for job in set(jobs.values()) - inside.keys():
            for method, below in JOB_ROUTES:
                await tenant.store.call(method, f"/v1/jobs/{job}{below}", status=404)
        assert await world.rows(outside=tenant) == before
        for method, path, status in (
            ("POST", "/v1/threads/chat/flush", 202),
            ("DELETE", "/v1/threads/chat", 204),
            ("DELETE", "/v1/managers/notes", 204),
            ("DELETE", "/v1/prompts/support/labels/production", 204),
            ("DELETE", "/v1/prompts/support", 204),
        ):
            await tenant.store.call(method, path, status=status)
        assert await world.rows(outside=tenant) == before


ESCAPES = [
    ["..", "acme2", "users"],
    ["", "users"],
    ["\x1facme2", "users"],
    ["users\x1facme2"],
    ["\x00"],
    ["\x1f"],
    [""],
]


async def test_no_label_leads_out(world: World) -> None:
    tenant = world.tenants[0]
    before = await world.rows(outside=tenant)
    for namespace in ESCAPES:
        await try_to_escape(tenant, namespace)
        assert await world.rows(outside=tenant) == before


async def try_to_escape(tenant: Tenant, namespace: list[str]) -> None:
    status = 200 if ".." in namespace else 422
    query = {"namespace": json.dumps(namespace), "key": "k"}
    for path in ("items", "items/versions"):
        response = await tenant.store.call("GET", f"/v1/store/{path}", status=status, params=query)
        assert response.json() in (None, {"versions": [], "next_cursor": None}) or status == 422
    for path, body in (
        ("items/search", {"namespace_prefix": namespace}),
        ("namespaces", {"prefix": namespace}),
        ("namespaces", {"suffix": namespace}),
    ):
        response = await tenant.store.call("POST", f"/v1/store/{path}", status=status, json=body)
        assert secrets(response.json()) == []
    address = {"namespace": namespace, "key": "k"}
    changed = 204 if ".." in namespace else 422
    await tenant.store.put(namespace, "k", {"n": 1}, status=changed)
    await tenant.store.call("DELETE", "/v1/store/items", status=changed, json=address)


namespaces = st.sampled_from(
    [
        *PLACES,
        ["inner"],
        ["acme"],
        ["acme", "users"],
        ["acme2", "users"],
        ["*"],
        [" "],
        ["\t"],
        ["2"],
    ]
)
operations = st.tuples(
    st.integers(0, len(ROOTS) - 1),
    st.sampled_from(["put", "put", "patch", "delete", "restore", "batch", "get", "list"]),
    namespaces,
    st.sampled_from(["k", "other"]),
)


async def carry_out(tenant: Tenant, name: str, namespace: list[str], key: str) -> Any:
    """Do one thing in a tenant's name, and return whatever the server says."""
    address: dict[str, Any] = {"namespace": namespace, "key": key}
    written = {**address, "value": {"text": tenant.text(namespace)}}
    query = {"namespace": json.dumps(namespace), "key": key}
    requests: dict[str, tuple[str, str, dict[str, Any]]] = {
        "put": ("PUT", "items", {"json": written}),
        "patch": ("PATCH", "items", {"json": written}),
        "delete": ("DELETE", "items", {"json": address}),
        "restore": ("POST", "items/restore", {"json": {**address, "version": 1}}),
        "get": ("GET", "items", {"params": query}),
        "list": ("POST", "namespaces", {"json": {"prefix": namespace}}),
        "batch": (
            "POST",
            "batch",
            {
                "json": {
                    "operations": [
                        {"op": "get", **address},
                        {"op": "search", "namespace_prefix": namespace, "query": SECRET},
                        {"op": "search", "limit": 1000},
                        {"op": "put", **written},
                        {"op": "delete", "namespace": namespace, "key": "gone"},
                    ]
                }
            },
        ),
    }
    method, path, body = requests[name]
    client, headers = tenant.store.client, tenant.store.headers
    response = await client.request(method, f"/v1/store/{path}", headers=headers, **body)
    assert response.status_code in {200, 204, 404, 409}, response.text
    return response.json() if response.content else None


@searched_exactly_and_by_index
@hypothesis_settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(sequence=st.lists(operations, min_size=1, max_size=12))
async def test_whatever_a_tenant_does_stays_inside_its_root(
    world: World, sequence: list[tuple[int, str, list[str], str]]
) -> None:
    for who, name, namespace, key in sequence:
        tenant = world.tenants[who]
        before = await world.rows(outside=tenant)
        answer = await carry_out(tenant, name, namespace, key)
        assert all(tenant.is_shown(text) for text in secrets(answer))
        assert await world.rows(outside=tenant) == before
    everything = await world.operator.store.search([], limit=1000)
    for tenant in world.tenants:
        depth = len(tenant.root)
        inside = [
            (item["namespace"][depth:], item["key"], item["value"])
            for item in everything
            if item["namespace"][:depth] == tenant.root
        ]
        seen = await tenant.store.search([], limit=1000)
        assert sorted_items(seen) == sorted(inside, key=repr)
        listed = await tenant.store.namespaces(limit=1000)
        assert sorted(listed) == sorted({tuple(n): n for n, _, _ in inside}.values())


def sorted_items(found: list[dict[str, Any]]) -> list[tuple[list[str], str, Any]]:
    return sorted(((i["namespace"], i["key"], i["value"]) for i in found), key=repr)


CONFINED_TO_ACME = to_stored(["acme"])
STRANGE = to_stored(["acme2", "users"])

ROWS = """
namespaces: namespace={n}
items: namespace={n} key={k} value='{{}}' version=1 created_at=now() updated_at=now()
item_versions: namespace={n} key={k} version=1 action='put' actor='mk' recorded_at=now()
passages: namespace={n} key={k} index_id={x} ordinal=0 item_id=1 length=0 path='$' text=''
    embedding='[1]'
terms: namespace={n} term='term' item_id={i} index_id=1 ordinal=0 frequency=1 length=1
item_usage: namespace={n} item_id={i} uses=1 last_used_at=now()
jobs: id={j} namespace={n} root={n} actor='mk' grants='[]' kind='extract' state='queued'
    request='{{}}' priority=0 max_attempts=5 run_at=now() created_at=now()
job_events: job_id={j} namespace={n} number=1 event='queued' data='{{}}' recorded_at=now()
model_calls: job_id={j} namespace={n} number=1 attempt=1 purpose='extract' model='m'
    finish_reason='end' input_tokens=1 output_tokens=1 cached_tokens=0 milliseconds=1
    recorded_at=now()
job_replies: job_id={j} namespace={n} digest={k} reply='null'
job_changes: job_id={j} namespace={n} number=1 key={k} action='insert' state='applied'
    details='{{}}'
idempotent_requests: namespace={n} actor='mk' key={k} fingerprint='' answer='null'
    created_at=now()
managers: namespace={n} name={k} config='{{}}' version=1 created_at=now() updated_at=now()
consolidation_marks: namespace={n} strategy='llm' consolidated_until=now()
threads: root={n} id={k} namespace={n} created_at=now() updated_at=now()
thread_messages: root={n} thread_id={k} position=1 namespace={n} message_id='m' message='{{}}'
    created_at=now()
prompts: namespace={n} name={k} revision=1 newest=1 created_at=now() updated_at=now()
prompt_versions: namespace={n} name={k} number=1 text='' actor='mk' created_at=now()
prompt_labels: namespace={n} name={k} label='beta' number=1 earlier='{{}}' actor='mk'
    moved_at=now()
"""
"""A row of each table with tenants' data: its columns in SQL."""

TABLES = tuple(re.findall(r"^(\w+):", ROWS, re.MULTILINE))


def insert(table: str, namespace: str, key: str = "k") -> str:
    """Return the SQL that adds a table's row."""
    row = re.split(r"^\w+:", ROWS, flags=re.MULTILINE)[1 + TABLES.index(table)]
    pairs = [pair.split("=", 1) for pair in row.split()]
    values = ", ".join(value for _, value in pairs).format(
        n=f"'{namespace}'",
        k=f"'{key}'",
        j=f"md5('{namespace}{key}')",
        i=f"(SELECT id FROM items WHERE namespace = '{namespace}' AND key = '{key}')",
        x="(SELECT id FROM passage_indexes)",
    )
    return f"INSERT INTO {table} ({', '.join(name for name, _ in pairs)}) VALUES ({values})"


@pytest.fixture
async def filled(settings: Settings) -> AsyncIterator[Database]:
    """A database with one row of acme and one of acme2 in every table that holds tenants' data."""
    database = await Database.open(str(settings.database_url), pool_size=1)
    async with database.transaction(ALL_ROOTS) as connection:
        await connection.execute(
            "INSERT INTO passage_indexes (embedding, dimensions, vocabulary, active) "
            "VALUES ('m', 1, '', true)"
        )
        for root in ("acme", "acme2"):
            for table in TABLES:
                await connection.execute(insert(table, to_stored([root, "users"])))
    yield database
    await database.close()


async def test_a_confined_connection_sees_only_its_rows(filled: Database) -> None:
    for table in TABLES:
        select = f"SELECT namespace FROM {table} ORDER BY namespace"
        async with filled.connection(CONFINED_TO_ACME) as connection:
            rows = await connection.fetch(select)
        assert [row["namespace"] for row in rows] == [to_stored(["acme", "users"])], table
        async with filled.connection(ALL_ROOTS) as connection:
            assert len(await connection.fetch(select)) == 2


@pytest.mark.parametrize("table", TABLES)
async def test_a_confined_connection_changes_only_its_rows(filled: Database, table: str) -> None:
    async with filled.transaction(CONFINED_TO_ACME) as connection:
        touched = await connection.execute(f"UPDATE {table} SET namespace = namespace")
        assert touched == "UPDATE 1"
        moved = f"UPDATE {table} SET namespace = '{STRANGE}'"
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
            async with connection.transaction():
                await connection.execute(moved)
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
            async with connection.transaction():
                await connection.execute(insert(table, STRANGE, "new"))
        await connection.execute("DELETE FROM passages")
        await connection.execute("DELETE FROM items")
        await connection.execute(f"DELETE FROM {table}")
    async with filled.connection(ALL_ROOTS) as connection:
        rows = await connection.fetch(f"SELECT namespace FROM {table}")
    assert [row["namespace"] for row in rows] == [STRANGE]


@pytest.mark.usefixtures("filled")
async def test_a_connection_without_a_root_sees_and_changes_nothing(settings: Settings) -> None:
    connection = await asyncpg.connect(str(settings.database_url))
    try:
        for table in TABLES:
            assert await connection.fetch(f"SELECT * FROM {table}") == []
            assert await connection.execute(f"DELETE FROM {table}") == "DELETE 0"
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
                await connection.execute(insert(table, to_stored(["acme", "new"])))
    finally:
        await connection.close()


async def test_every_table_with_namespaces_is_behind_row_level_security(filled: Database) -> None:
    async with filled.connection(ALL_ROOTS) as connection:
        rows = await connection.fetch(
            "SELECT relname::text, relrowsecurity AND relforcerowsecurity AS confined "
            "FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid "
            "WHERE attname = 'namespace' AND relkind = 'r'"
        )
    assert {row["relname"]: row["confined"] for row in rows} == dict.fromkeys(TABLES, True)


async def test_an_interrupted_borrower_leaves_no_wrong_root_behind(settings: Settings) -> None:
    database = await Database.open(str(settings.database_url), pool_size=1)

    async def seen(root: str) -> str:
        async with database.connection(root) as connection:
            return str(await connection.fetchval("SELECT current_setting('memoryd.root')"))

    for patience in range(40):
        assert await seen("a") == "a"
        hasty = asyncio.create_task(seen("b"))
        for _ in range(patience):
            await asyncio.sleep(0)
        hasty.cancel()
        await asyncio.gather(hasty, return_exceptions=True)
        assert await seen("a") == "a"
        assert await seen("b") == "b"
    await database.close()
