"""MCP over HTTP: requests, keys and their grants, and connections confined to a namespace."""

from itertools import product
from typing import Any

import httpx2
import pytest
from mcp import MCPError

from app.auth.access import Verb
from app.auth.service import KeyService
from tests.support.app import Store
from tests.support.keys import assert_problem, grant, key_with
from tests.support.mcp_client import HERE, Agent, connected

pytestmark = pytest.mark.slow

PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
JSON = {"accept": "application/json, text/event-stream", "content-type": "application/json"}


async def post(
    client: httpx2.AsyncClient, url: str = HERE, headers: dict[str, str] | None = None, **more: Any
) -> httpx2.Response:
    content = more or {"json": PING}
    return await client.post(url, headers={**JSON, **(headers or {})}, **content)


async def test_answers_are_json_with_a_request_id(client: httpx2.AsyncClient) -> None:
    response = await post(client, headers={"x-request-id": "mine"})
    assert response.status_code == 200
    assert response.json() == {"jsonrpc": "2.0", "id": 1, "result": {}}
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"] == "mine"
    assert "mcp-session-id" not in response.headers


async def test_a_slash_at_the_end_and_a_missing_accept_make_no_difference(
    client: httpx2.AsyncClient,
) -> None:
    content_type = {"content-type": "application/json"}
    for url, headers in ((f"{HERE}/", JSON), (HERE, content_type), (f"{HERE}/", content_type)):
        request = client.build_request("POST", url, json=PING, headers=headers)
        if "accept" not in headers:
            del request.headers["accept"]
        response = await client.send(request)
        assert (response.status_code, response.json()["id"]) == (200, 1)


async def test_the_case_of_a_media_type_and_arguments_as_json_text_make_no_difference(
    client: httpx2.AsyncClient,
) -> None:
    params = {"name": "remember", "arguments": '{"text": "Ana likes tea."}'}
    request = {"jsonrpc": "2.0", "id": "a", "method": "tools/call", "params": params}
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    response = await post(client, f"{HERE}?namespace=users", headers, json=request)
    assert response.json()["result"]["isError"] is False, response.text
    ids: list[Any] = [1.5, None, True, []]
    for id_ in ids:
        response = await post(client, json={**PING, "id": id_})
        assert_problem(response, 422, "invalid_request")


async def test_other_methods_and_content_types_are_a_problem(client: httpx2.AsyncClient) -> None:
    for method in ("GET", "DELETE", "PUT"):
        response = await client.request(method, HERE, headers=JSON)
        assert_problem(response, 405, "method_not_allowed")
        assert response.headers["allow"] == "POST"
    for media_type in ("text/plain", "application/jsonl", ""):
        response = await post(client, headers={"content-type": media_type})
        detail = assert_problem(response, 422, "invalid_request")
        assert "Content-Type: application/json" in detail


MALFORMED = [
    b"{",
    b"[]",
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":[]}',
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"\\ud800"}}',
    b'{"a":' * 9000,
    b'{"id":1' + b"0" * 9000 + b"}",
    b"\xff",
]


async def test_malformed_requests_are_refused(client: httpx2.AsyncClient) -> None:
    for body, version in product(MALFORMED, ("2025-11-25", "2026-07-28", "1999-01-01")):
        headers = {"mcp-protocol-version": version, "mcp-method": "tools/call", "mcp-name": "a"}
        response = await post(client, headers=headers, content=body)
        assert response.status_code in {200, 400}
        assert response.json()["error"]["code"] in range(-32800, -32599)


async def test_a_body_may_have_a_mebibyte_and_20_000_values(client: httpx2.AsyncClient) -> None:
    large = {**PING, "params": {"_meta": {"a": "x" * 1_000_000}}}
    assert (await post(client, json=large)).status_code == 200
    too_large = {**PING, "params": {"_meta": {"a": "x" * (1 << 20)}}}
    assert_problem(await post(client, json=too_large), 413, "body_too_large")
    too_many = {**PING, "params": {"_meta": {"a": [[]] * 20_000}}}
    assert_problem(await post(client, json=too_many), 422, "invalid_request")


async def test_a_key_is_needed_once_one_exists(
    client: httpx2.AsyncClient, keys: KeyService
) -> None:
    key = (await key_with(keys))["x-api-key"]
    for headers in ({}, {"x-api-key": "mk_a_b"}, {"authorization": "Bearer x"}):
        response = await post(client, headers=headers)
        assert_problem(response, 401, "unauthenticated")
        assert response.headers["www-authenticate"] == "Bearer"
    elsewhere = {"host": "memory.example.com", "origin": "https://app.example.com"}
    for headers in ({"x-api-key": key}, {"authorization": f"Bearer {key}"}):
        assert (await post(client, headers=headers | elsewhere)).status_code == 200


async def test_tools_without_a_grant_are_neither_listed_nor_done(
    client: httpx2.AsyncClient, keys: KeyService
) -> None:
    headers = await key_with(keys, grant({Verb.READ}))
    async with connected(client, headers) as opened:
        tools = [tool.name for tool in (await opened.list_tools()).tools]
        assert tools == ["search_memories", "list_namespaces"]
        agent = Agent(opened)
        assert "no grant to write" in await agent.refused("remember", text="a")
        assert "no grant to delete" in await agent.refused("forget_memory", id="memories/a")
        assert "no grant to jobs" in await agent.refused("extract_memories", text="a")
        assert await agent.search() == []


async def test_a_key_that_only_deletes_learns_nothing(
    client: httpx2.AsyncClient, keys: KeyService
) -> None:
    owner = await key_with(keys)
    await Store(client, owner).put(["memories"], "a", {"content": "b"})
    async with connected(client, await key_with(keys, grant({Verb.DELETE}))) as opened:
        for id_ in ("memories/a", "memories/none"):
            assert await Agent(opened).call("forget_memory", id=id_) == {"id": id_}
    assert await Store(client, owner).search(["memories"]) == []


async def test_a_key_that_only_writes_reads_nothing(
    client: httpx2.AsyncClient, keys: KeyService
) -> None:
    await Store(client, await key_with(keys)).put(["memories"], "k", {"content": "secret"})
    async with connected(client, await key_with(keys, grant({Verb.WRITE}))) as opened:
        assert [tool.name for tool in (await opened.list_tools()).tools] == ["remember"]
        agent = Agent(opened)
        await agent.remember("a")
        assert "no grant to read" in await agent.refused("search_memories")
        update = {"id": "memories/k", "text": "b"}
        assert "no grant to read" in await agent.refused("update_memory", **update)
        assert (await opened.list_resources()).resources == []
        assert (await opened.list_prompts()).prompts == []
        assert (await agent.call("list_namespaces"))["namespaces"] == []
        with pytest.raises(MCPError, match="no grant to read"):
            await opened.read_resource("memory:///memories/k")


async def test_a_key_of_two_namespaces_lists_both(
    client: httpx2.AsyncClient, keys: KeyService
) -> None:
    store = Store(client, await key_with(keys))
    for user in ("ann", "bob", "eve"):
        await store.put(["users", user], "k", {"content": user})
    headers = await key_with(keys, *(grant({Verb.READ}, "users", user) for user in ("eve", "ann")))
    async with connected(client, headers) as opened:
        listed = await Agent(opened).call("list_namespaces")
        assert [one["namespace"][1] for one in listed["namespaces"]] == ["ann", "eve"]
        page = await opened.list_resources()
        rest = await opened.list_resources(cursor=page.next_cursor)
        assert [one.uri for one in page.resources] == ["memory:///users/ann/k"]
        assert [one.uri for one in rest.resources] == ["memory:///users/eve/k"]
        assert rest.next_cursor is None


async def test_a_namespace_in_the_url_confines_the_connection(
    client: httpx2.AsyncClient, store: Store
) -> None:
    await store.put(["users", "bob"], "k", {"content": "Bob"})
    await store.put(["users", "ann", "old"], "k", {"content": "Ann was here."})
    async with connected(client, namespace=["users", "ann"]) as opened:
        tools = (await opened.list_tools()).tools
        assert not any("namespace" in tool.input_schema["properties"] for tool in tools)
        agent = Agent(opened)
        memory = await agent.remember("Ann likes ramen.")
        assert "/" not in memory
        assert set(await agent.texts()) == {"Ann likes ramen.", "Ann was here."}
        await agent.call("update_memory", id=memory, text="Ann likes udon.")
        await agent.call("forget_memory", id="old/k")
        assert await agent.texts(query="Ann") == ["Ann likes udon."]
        listed = await agent.call("list_namespaces")
        assert listed["namespaces"] == [{"namespace": [], "memories": 1}]
        assert "leave namespace out" in await agent.refused("remember", text="a", namespace=[])
        for bob in ("users/bob/k", "../bob/k", "%2E%2E/bob/k"):
            assert "There is no memory" in await agent.refused("forget_memory", id=bob)
    assert (await store.get(["users", "bob"], "k"))["value"] == {"content": "Bob"}


async def test_grants_count_below_the_namespace(
    client: httpx2.AsyncClient, keys: KeyService
) -> None:
    granted = grant({Verb.READ, Verb.WRITE}, "users", "ann")
    headers = await key_with(keys, granted, root=("acme",))
    for inside in (["users", "ann"], ["users", "ann", "notes"]):
        async with connected(client, headers, namespace=inside) as opened:
            await Agent(opened).remember("a")
    async with connected(client, headers, namespace=["users"]) as above:
        assert "no grant to write" in await Agent(above).refused("remember", text="a")
    for joined, status in (("users.ann", 200), ("users.bob", 403)):  # by dots, as well as JSON
        response = await post(client, f"{HERE}?namespace={joined}", headers)
        assert response.status_code == status, response.text


async def test_a_mistaken_namespace_does_not_open_everything(client: httpx2.AsyncClient) -> None:
    for query, field in (
        ("namespace=a..b", "namespace"),
        ("namespace=%00", "namespace"),
        ("namespace=a&namespace=b", "namespace"),
        ("namespace=", "namespace: is empty; leave it out"),
        ("namespace=[]", "namespace: is empty; leave it out"),
        ("namspace=users.ann", "namspace: There is no such field"),
    ):
        response = await post(client, f"{HERE}?{query}")
        assert field in assert_problem(response, 422, "invalid_request")
