"""Problem documents as errors of the LangGraph SDK for Python."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

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


@pytest.mark.parametrize(
    ("item", "field"),
    [
        ({"namespace": ["langgraph"]}, "namespace[0]"),
        ({"value": {"deep": ["\x00"]}}, "value.deep[0]"),
        ({"ttl": 0}, "ttl"),
    ],
)
async def test_an_invalid_put_raises_an_error_with_the_field(
    store: Any, item: dict[str, Any], field: str
) -> None:
    item = {"namespace": ["a"], "key": "k", "value": {}} | item
    with pytest.raises(UnprocessableEntityError, match=field.partition("[")[0]) as raised:
        await store.put_item(item.pop("namespace"), **item)
    assert raised.value.body["errors"][0]["field"] == field  # type: ignore[index]
    assert raised.value.request_id


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda client: client.assistants.get("one"), "no_such_route"),
        (lambda client: client.threads.create(), "no_such_route"),
        (lambda client: client.threads.get_state("t"), "no_such_route"),
        (lambda client: client.runs.create_batch([]), "no_such_route"),
        (lambda client: client.runs.get("t", "r"), "no_such_route"),
        (lambda client: client.runs.list("t"), "method_not_allowed"),
        (lambda client: client.crons.search(), "no_such_route"),
    ],
)
async def test_unsupported_routes_raise_errors_with_the_alternatives(
    server: Server, call: Callable[[Any], Awaitable[Any]], code: str
) -> None:
    async with get_client(url=f"{server.url}/v1", api_key=None) as client:
        with pytest.raises(APIStatusError, match=r"the store and runs\.create; GET /v1/jobs/") as e:
            await call(client)
    assert e.value.code == code


async def test_without_a_key_the_error_explains_how_to_send_one(locked: LockedServer) -> None:
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


async def test_a_key_opens_the_store_in_either_header(locked: LockedServer, root: str) -> None:
    url = f"{locked.server.url}/v1"
    async with get_client(url=url, api_key=locked.full_key) as client:
        await client.store.put_item([root], key="k", value={"a": 1})
    headers = {"Authorization": f"Bearer {locked.full_key}"}
    with get_sync_client(url=url, api_key=None, headers=headers) as sync_client:
        assert sync_client.store.get_item([root], key="k")["value"] == {"a": 1}


async def test_a_key_that_may_only_read_cannot_write(locked: LockedServer, root: str) -> None:
    async with get_client(url=f"{locked.server.url}/v1", api_key=locked.reading_key) as client:
        assert await client.store.get_item([root], key="k") is None
        with pytest.raises(PermissionDeniedError, match="no grant to write") as raised:
            await client.store.put_item([root], key="k", value={})
        with pytest.raises(PermissionDeniedError, match="no grant to delete"):
            await client.store.delete_item([root], key="k")
    assert raised.value.code == "forbidden"
    assert raised.value.request_id
