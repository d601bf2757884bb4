"""Nothing outside a key's root, or a connection's namespace, is shown or changed."""

import itertools
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from mcp import Client, MCPError

from app.auth.service import KeyService
from app.db.database import ALL_ROOTS, Database
from app.namespaces import to_stored
from app.tools.memories import memory_id
from tests.support.app import Store
from tests.support.keys import key_with
from tests.support.mcp_client import connected

pytestmark = pytest.mark.slow

ROOTS = [["acme"], ["acme", "inner"], ["acme2"], ["ACME"], ["acm"]]
PLACES = [["memories"], ["users", "ann"], ["memories", "deep"]]
SECRET = re.compile(r"secret of ([\w/]+)\.")

LABELS = st.lists(
    st.sampled_from(["acme", "acme2", "inner", "memories", "users", "ann", "deep", "..", ".", "*"]),
    max_size=4,
)
REAL = [memory_id(place, "k") for place in [*PLACES, ["ann"], ["acme", "memories"], ["inner"]]]
ADDRESSES = st.sampled_from(REAL) | st.builds(
    lambda start, labels, joint: start + joint.join([*labels, "k"]),
    st.sampled_from(["", "memory:///", "/", "../", "%2E%2E/", "..%2F", "\x1f", "memory://acme/"]),
    LABELS,
    st.sampled_from(["/", "%2F", "\x1f", "%1F", "."]),
)
NAMESPACE = {"namespace": LABELS | st.just(["acme\x1finner"])}
QUERY = {"query": st.just("secret")}


def calls_of(
    tool: str,
    needed: dict[str, st.SearchStrategy[Any]],
    optional: dict[str, st.SearchStrategy[Any]] | None = None,
) -> st.SearchStrategy[tuple[str, Any]]:
    return st.tuples(st.just(tool), st.fixed_dictionaries(needed, optional=optional or {}))


CALLS = st.one_of(
    calls_of("search_memories", {}, NAMESPACE | QUERY),
    calls_of("remember", {"text": st.just("mine")}, NAMESPACE),
    calls_of("update_memory", {"id": ADDRESSES, "text": st.just("mine")}),
    calls_of("forget_memory", {"id": ADDRESSES}),
    calls_of("list_namespaces", {}, {"prefix": NAMESPACE["namespace"]}),
    st.tuples(st.just("resource"), ADDRESSES),
)


@dataclass
class World:
    """A server whose items and prompts name their roots."""

    client: httpx2.AsyncClient
    database: Database
    headers: list[dict[str, str]]

    async def outside(self, scope: list[str]) -> list[str]:
        """Return every row outside a scope."""
        low = to_stored(scope)
        async with self.database.connection(ALL_ROOTS) as connection:
            rows = [
                (row["namespace"], row["row"])
                for table in ("items", "item_versions", "prompts", "jobs")
                for row in await connection.fetch(
                    f"SELECT namespace, {table}::text AS row FROM {table}"
                )
            ]
        return sorted(row for namespace, row in rows if not namespace.startswith(low))


@pytest.fixture
async def world(client: httpx2.AsyncClient, keys: KeyService, database: Database) -> World:
    headers = [await key_with(keys, root=tuple(root)) for root in ROOTS]
    for root, header in zip(ROOTS, headers, strict=True):
        store = Store(client, header)
        for place in PLACES:
            await store.put(place, "k", {"content": secret_of([*root, *place])})
        await store.call("PUT", "/v1/prompts/p", status=201, json={"text": secret_of(root)})
    return World(client, database, headers)


def secret_of(labels: list[str]) -> str:
    return f"secret of {'/'.join(labels)}."


def secrets_in(shown: str) -> list[list[str]]:
    """Return the scopes whose secrets a text contains."""
    return [found.split("/") for found in SECRET.findall(shown)]


async def shown_by(client: Client, tool: str, asked: Any) -> str:
    """Return the whole answer to a tool call or to reading a resource."""
    if tool != "resource":
        return (await client.call_tool(tool, asked)).model_dump_json()
    try:
        return (await client.read_resource(asked)).model_dump_json()
    except MCPError as error:
        return error.message


async def everything_listed(client: Client) -> str:
    """Return all lists, and the prompt."""
    shown = [
        (await client.list_tools()).model_dump_json(),
        (await client.list_prompts()).model_dump_json(),
        (await client.get_prompt("p")).model_dump_json(),
    ]
    cursor = None
    for _ in itertools.count():
        page = await client.list_resources(cursor=cursor)
        shown.append(page.model_dump_json())
        cursor = page.next_cursor
        if cursor is None:
            return "\n".join(shown)
    raise AssertionError


@asynccontextmanager
async def each_connection(world: World) -> AsyncIterator[list[tuple[list[str], Client]]]:
    """Yield a client of each root, unconfined and confined, with the scope it may see."""
    async with (
        connected(world.client, world.headers[0]) as acme,
        connected(world.client, world.headers[1]) as inner,
        connected(world.client, world.headers[0], namespace=["users"]) as confined,
    ):
        yield [(["acme"], acme), (["acme", "inner"], inner), (["acme", "users"], confined)]


async def test_lists_show_everything_inside_and_nothing_else(world: World) -> None:
    every = [[*root, *place] for root in ROOTS for place in PLACES]
    async with each_connection(world) as clients:
        for scope, client in clients:
            inside = [labels for labels in every if labels[: len(scope)] == scope]
            prompt = scope[:1] if scope[-1] == "users" else scope
            assert sorted(secrets_in(await everything_listed(client))) == sorted([*inside, prompt])


@hypothesis_settings(max_examples=25)
@given(calls=st.lists(CALLS, min_size=1, max_size=3))
async def test_no_call_shows_or_changes_anything_outside(
    world: World, calls: list[tuple[str, Any]]
) -> None:
    async with each_connection(world) as clients:
        for scope, client in clients:
            before = await world.outside(scope)
            for tool, asked in calls:
                for secret in secrets_in(await shown_by(client, tool, asked)):
                    assert secret[: len(scope)] == scope
            assert await world.outside(scope) == before
