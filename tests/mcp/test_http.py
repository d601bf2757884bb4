import asyncio
from typing import Any

import httpx2
import pytest
from mcp import MCPError

from app.auth.access import ALL_GRANTED, Grant, Verb
from app.auth.service import KeyService
from tests.auth.test_routes import assert_problem, key_with
from tests.support.app import Store
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


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT"])
async def test_other_methods_are_told_which_to_use(client: httpx2.AsyncClient, method: str) -> None:
    response = await client.request(method, HERE, headers=JSON)
    assert_problem(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize("media_type", ["text/plain", "application/jsonl", ""])
async def test_another_content_type_is_a_problem(
    client: httpx2.AsyncClient, media_type: str
) -> None:
    response = await post(client, headers={"content-type": media_type})
    assert_problem(response, 422, "invalid_request")
    assert "Content-Type: application/json" in response.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"null",
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":[]}',
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"\\ud800"}}',
        b'{"a":' * 9000,
        b'{"id":1' + b"0" * 9000 + b"}",
        b"\xff",
    ],
)
@pytest.mark.parametrize("version", ["2025-11-25", "2026-07-28", "1999-01-01"])
async def test_what_is_no_request_is_refused(
    client: httpx2.AsyncClient, body: bytes, version: str
) -> None:
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


class TestWithKeys:
    async def test_there_is_nothing_without_one(
        self, client: httpx2.AsyncClient, keys: KeyService
    ) -> None:
        await key_with(keys, *ALL_GRANTED)
        for headers in ({}, {"x-api-key": "mk_a_b"}, {"authorization": "Bearer x"}):
            response = await post(client, headers=headers)
            assert_problem(response, 401, "unauthenticated")
            assert response.headers["www-authenticate"] == "Bearer"

    async def test_either_header_and_any_name_will_do(
        self, client: httpx2.AsyncClient, keys: KeyService
    ) -> None:
        key = (await key_with(keys, *ALL_GRANTED))["x-api-key"]
        for given in ({"x-api-key": key}, {"authorization": f"Bearer {key}"}):
            headers = {**given, "host": "memory.example.com", "origin": "https://app.example.com"}
            assert (await post(client, headers=headers)).status_code == 200


class TestGrants:
    async def test_tools_without_a_grant_are_neither_shown_nor_done(
        self, client: httpx2.AsyncClient, keys: KeyService, mode: str
    ) -> None:
        headers = await key_with(keys, Grant((), frozenset({Verb.READ})))
        async with connected(client, headers, mode=mode) as opened:
            tools = [tool.name for tool in (await opened.list_tools()).tools]
            assert tools == ["search_memories", "list_namespaces"]
            agent = Agent(opened)
            assert "no grant to write" in await agent.refused("remember", text="a")
            assert "no grant to delete" in await agent.refused("forget_memory", id="memories/a")
            assert "no grant to jobs" in await agent.refused("extract_memories", text="a")
            assert await agent.search() == []

    async def test_a_key_that_only_deletes_does_not_learn_what_is_there(
        self, client: httpx2.AsyncClient, keys: KeyService, mode: str
    ) -> None:
        item = {"namespace": ["memories"], "key": "a", "value": {"content": "b"}}
        everything = await key_with(keys, *ALL_GRANTED)
        assert (await client.put("/v1/store/items", json=item, headers=everything)).is_success
        headers = await key_with(keys, Grant((), frozenset({Verb.DELETE})))
        async with connected(client, headers, mode=mode) as opened:
            agent = Agent(opened)
            for id_ in ("memories/a", "memories/none"):
                assert await agent.call("forget_memory", id=id_) == {"id": id_}
        async with connected(client, everything, mode=mode) as opened:
            assert await Agent(opened).search() == []

    async def test_a_key_that_only_writes_reads_nothing(
        self, client: httpx2.AsyncClient, keys: KeyService
    ) -> None:
        store = Store(client, await key_with(keys, *ALL_GRANTED))
        await store.put(["memories"], "k", {"content": "secret"})
        headers = await key_with(keys, Grant((), frozenset({Verb.WRITE})))
        async with connected(client, headers) as opened:
            assert [tool.name for tool in (await opened.list_tools()).tools] == ["remember"]
            agent = Agent(opened)
            await agent.remember("a")
            assert "no grant to read" in await agent.refused("search_memories")
            said = await agent.refused("update_memory", id="memories/k", text="b")
            assert "no grant to read" in said
            assert (await opened.list_resources()).resources == []
            assert (await opened.list_prompts()).prompts == []
            assert (await agent.call("list_namespaces"))["namespaces"] == []
            with pytest.raises(MCPError, match="no grant to read"):
                await opened.read_resource("memory:///memories/k")

    async def test_a_key_of_two_places_lists_both(
        self, client: httpx2.AsyncClient, keys: KeyService
    ) -> None:
        store = Store(client, await key_with(keys, *ALL_GRANTED))
        for place in ("ann", "bob", "eve"):
            await store.put(["users", place], "k", {"content": place})
        grants = [Grant(("users", name), frozenset({Verb.READ})) for name in ("eve", "ann")]
        headers = await key_with(keys, *grants)
        async with connected(client, headers) as opened:
            listed = await Agent(opened).call("list_namespaces")
            assert [one["namespace"][1] for one in listed["namespaces"]] == ["ann", "eve"]
            page = await opened.list_resources()
            assert [one.uri for one in page.resources] == ["memory:///users/ann/k"]
            rest = await opened.list_resources(cursor=page.next_cursor)
            assert [one.uri for one in rest.resources] == ["memory:///users/eve/k"]
            assert rest.next_cursor is None


class TestConfined:
    async def test_a_namespace_in_the_url_is_all_there_is(
        self, client: httpx2.AsyncClient, store: Store, mode: str
    ) -> None:
        await store.put(["users", "bob"], "k", {"content": "Bob"})
        await store.put(["users", "ann", "old"], "k", {"content": "Ann was here."})
        async with connected(client, namespace=["users", "ann"], mode=mode) as opened:
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
        (item,) = await store.search(["users", "ann"])
        assert item["value"] == {"content": "Ann likes udon."}
        assert (await store.get(["users", "bob"], "k"))["value"] == {"content": "Bob"}

    async def test_tools_take_no_namespace_then(self, client: httpx2.AsyncClient) -> None:
        async with connected(client, namespace=["users", "ann"]) as opened:
            tools = (await opened.list_tools()).tools
        assert not any("namespace" in tool.input_schema["properties"] for tool in tools)

    async def test_a_memory_whose_key_is_empty_is_one_like_others(
        self, client: httpx2.AsyncClient, store: Store
    ) -> None:
        await store.put(["users", "ann"], "", {"content": "old"})
        async with connected(client, namespace=["users", "ann"]) as opened:
            agent = Agent(opened)
            (found,) = await agent.search()
            await agent.call("update_memory", id=found["id"], text="new")
            assert await agent.texts() == ["new"]
            await agent.call("forget_memory", id=found["id"])
            assert await agent.search() == []

    async def test_reserved_labels_stay_reserved(self, client: httpx2.AsyncClient) -> None:
        async with connected(client, namespace=["langgraph"]) as opened:
            assert "reserved" in await Agent(opened).refused("remember", text="a")

    async def test_labels_may_be_joined_by_dots(
        self, client: httpx2.AsyncClient, store: Store
    ) -> None:
        await store.put(["users", "ann"], "k", {"content": "Ann"})
        call = {"name": "search_memories", "arguments": {}}
        body = {**PING, "method": "tools/call", "params": call}
        response = await post(client, HERE + "?namespace=users.ann", json=body)
        found = response.json()["result"]["structuredContent"]["memories"]
        assert [memory["id"] for memory in found] == ["k"]

    async def test_grants_count_below_the_namespace(
        self, client: httpx2.AsyncClient, keys: KeyService
    ) -> None:
        grant = Grant(("users", "ann"), frozenset({Verb.READ, Verb.WRITE}))
        headers = await key_with(keys, grant, root=("acme",))
        for inside in (["users", "ann"], ["users", "ann", "notes"]):
            async with connected(client, headers, namespace=inside) as opened:
                await Agent(opened).remember("a")
        async with connected(client, headers, namespace=["users"]) as above:
            assert "no grant to write" in await Agent(above).refused("remember", text="a")
        response = await post(client, HERE + "?namespace=users.bob", headers)
        assert "no grant" in assert_problem(response, 403, "forbidden")

    @pytest.mark.parametrize(
        "query", ["namespace=a..b", "namespace=%00", "namespace=a&namespace=b"]
    )
    async def test_a_namespace_that_cannot_be(self, client: httpx2.AsyncClient, query: str) -> None:
        response = await post(client, f"{HERE}?{query}")
        assert "namespace" in assert_problem(response, 422, "invalid_request")

    @pytest.mark.parametrize(
        ("query", "said"),
        [
            ("namespace=", "namespace: is empty; leave it out"),
            ("namespace=[]", "namespace: is empty; leave it out"),
            ("namspace=users.ann", "namspace: There is no such field"),
            ("Namespace=users.ann", "Namespace: There is no such field"),
        ],
    )
    async def test_what_was_to_confine_it_does_not_open_everything(
        self, client: httpx2.AsyncClient, query: str, said: str
    ) -> None:
        response = await post(client, f"{HERE}?{query}")
        assert assert_problem(response, 422, "invalid_request").startswith(said)


async def test_many_calls_at_once_are_answered_each_with_its_own(
    client: httpx2.AsyncClient, store: Store, mode: str
) -> None:
    places = [["memories", str(number)] for number in range(30)]
    put = {"op": "put", "key": "k"}
    texts = [{"content": f"number {number}"} for number in range(30)]
    pairs = zip(places, texts, strict=True)
    await store.batch(*({**put, "namespace": place, "value": text} for place, text in pairs))
    async with connected(client, mode=mode) as opened:
        agent = Agent(opened)
        found = await asyncio.gather(*(agent.texts(namespace=place) for place in places))
    assert found == [[f"number {number}"] for number in range(30)]
