"""Our problem documents as the LangGraph SDK for Python raises them."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
from langgraph_sdk import get_client, get_sync_client
from langgraph_sdk.errors import (
    APIStatusError,
    AuthenticationError,
    PermissionDeniedError,
    UnprocessableEntityError,
)

from tests.clients.conftest import LockedServer
from tests.support.server import Server

pytestmark = pytest.mark.slow


@pytest.fixture
async def store(server: Server) -> AsyncIterator[Any]:
    async with get_client(url=f"{server.url}/v1", api_key=None) as client:
        yield client.store


def test_the_probe_of_the_sdks_own_tests_answers(server: Server) -> None:
    assert httpx.get(f"{server.url}/v1/ok").status_code == 200


@pytest.mark.parametrize(
    ("item", "message", "field"),
    [
        (
            {"namespace": [], "key": "k", "value": {}},
            "namespace: is empty; give at least one label.",
            "namespace",
        ),
        (
            {"namespace": ["a", ""], "key": "k", "value": {}},
            "namespace: label 1 is empty; give every label at least one character.",
            "namespace",
        ),
        (
            {"namespace": ["langgraph"], "key": "k", "value": {}},
            'namespace begins with "langgraph", which is reserved; choose another first label.',
            "namespace[0]",
        ),
        (
            {"namespace": ["a"], "key": "k", "value": {"deep": ["\x00"]}},
            "value.deep[0] contains U+0000, which cannot be stored; leave it out.",
            "value.deep[0]",
        ),
        (
            {"namespace": ["a"], "key": "k", "value": {}, "ttl": 0},
            "ttl: Input should be greater than 0.",
            "ttl",
        ),
        (
            {"namespace": ["a"], "key": "k", "value": {}, "index": True},
            "index: is true; send false, a list of paths, or leave it out.",
            "index",
        ),
        (
            {"namespace": ["a"], "key": "k", "value": {}, "index": ["text", 1]},
            "index[1]: This is not a string; send one.",
            "index[1]",
        ),
    ],
)
async def test_an_invalid_put_raises_with_the_field_and_what_to_do(
    store: Any, item: dict[str, Any], message: str, field: str
) -> None:
    with pytest.raises(UnprocessableEntityError) as raised:
        await store.put_item(item.pop("namespace"), **item)
    assert raised.value.message == message
    assert raised.value.body["errors"][0]["field"] == field  # type: ignore[index]
    assert raised.value.request_id


async def test_an_unknown_operator_raises_with_the_ones_there_are(store: Any, root: str) -> None:
    with pytest.raises(UnprocessableEntityError, match=r"filter.*\$near.*\$gte"):
        await store.search_items([root], filter={"a": {"$near": 1}})


@pytest.mark.parametrize(("field", "value"), [("limit", -1), ("limit", 100_000), ("offset", -1)])
async def test_a_page_out_of_bounds_raises(store: Any, root: str, field: str, value: int) -> None:
    with pytest.raises(UnprocessableEntityError, match=rf"^{field}: Input should be .* equal to"):
        await store.search_items([root], **{field: value})


async def test_a_route_there_is_not_raises_not_found(server: Server) -> None:
    async with get_client(url=f"{server.url}/v1", api_key=None) as client:
        with pytest.raises(APIStatusError) as raised:
            await client.assistants.get("one")
    assert raised.value.status_code == 404
    assert raised.value.code == "no_such_route"


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda client: client.threads.create(), "no_such_route"),
        (lambda client: client.threads.get_state("t"), "no_such_route"),
        (lambda client: client.runs.create_batch([]), "no_such_route"),
        (lambda client: client.runs.get("t", "r"), "no_such_route"),
        (lambda client: client.runs.list("t"), "method_not_allowed"),
        (lambda client: client.crons.search(), "no_such_route"),
    ],
)
async def test_what_only_the_platform_can_do_raises_with_what_there_is(
    server: Server, call: Callable[[Any], Awaitable[Any]], code: str
) -> None:
    async with get_client(url=f"{server.url}/v1", api_key=None) as client:
        with pytest.raises(APIStatusError, match=r"the store and runs\.create; GET /v1/jobs/") as e:
            await call(client)
    assert e.value.code == code


async def test_without_a_key_the_error_says_how_to_send_one(locked: LockedServer) -> None:
    async with get_client(url=f"{locked.server.url}/v1", api_key=None) as client:
        with pytest.raises(AuthenticationError, match="send it as `x-api-key: mk_…`") as raised:
            await client.store.get_item(["a"], key="k")
    assert raised.value.code == "unauthenticated"
    assert raised.value.response.headers["www-authenticate"] == "Bearer"
    assert raised.value.request_id


async def test_a_key_of_another_service_is_explained(
    locked: LockedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANGSMITH_API_KEY", "lsv2_other")
    async with get_client(url=f"{locked.server.url}/v1") as client:
        with pytest.raises(AuthenticationError, match="LANGSMITH_API_KEY"):
            await client.store.get_item(["a"], key="k")


async def test_a_key_opens_the_store(locked: LockedServer, root: str) -> None:
    async with get_client(url=f"{locked.server.url}/v1", api_key=locked.full_key) as client:
        await client.store.put_item([root], key="k", value={"a": 1})
        assert (await client.store.get_item([root], key="k"))["value"] == {"a": 1}


def test_a_key_opens_the_store_as_a_bearer_token(locked: LockedServer, root: str) -> None:
    headers = {"Authorization": f"Bearer {locked.full_key}"}
    with get_sync_client(url=f"{locked.server.url}/v1", api_key=None, headers=headers) as client:
        assert client.store.search_items([root])["items"] == []


async def test_a_key_that_may_only_read_cannot_write(locked: LockedServer, root: str) -> None:
    async with get_client(url=f"{locked.server.url}/v1", api_key=locked.reading_key) as client:
        assert await client.store.get_item([root], key="k") is None
        with pytest.raises(PermissionDeniedError, match="no grant to write") as raised:
            await client.store.put_item([root], key="k", value={})
        with pytest.raises(PermissionDeniedError, match="no grant to delete"):
            await client.store.delete_item([root], key="k")
    assert raised.value.code == "forbidden"
    assert raised.value.request_id
