"""Every answer has an id, and bad or hostile requests get problem documents that help."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx2
import pytest
from starlette.types import Message, Receive, Scope, Send
from typing_extensions import override

from app.clock import FrozenClock
from app.config import Settings
from app.http.request_context import RequestContext
from app.main import create_app
from app.providers.embedder import FakeEmbedder, TextKind, Vector
from tests.support.app import running

ITEMS = "/v1/store/items"
PUT = {"namespace": ["users"], "key": "food", "value": {"text": "ramen"}}


def assert_problem(response: httpx2.Response, status: int, code: str | None = None) -> Any:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-request-id"]
    problem = response.json()
    assert (problem["status"], problem["code"]) == (status, code or problem["code"])
    assert problem["type"] == f"urn:memoryd:problem:{problem['code']}"
    assert problem["title"]
    assert problem["detail"]
    for error in problem.get("errors", ()):
        assert error.keys() == {"field", "detail"}
    return problem


async def put_text(
    client: httpx2.AsyncClient, body: str | bytes, **headers: str
) -> httpx2.Response:
    sent = {"content-type": "application/json", **headers}
    return await client.put(ITEMS, content=body, headers=sent)


class BrokenEmbedder(FakeEmbedder):
    """Fails as a mistake of ours would: with an unexpected error."""

    @override
    async def embed(self, texts: Sequence[str], *, kind: TextKind = "passage") -> list[Vector]:
        raise RuntimeError(f"cannot embed {texts[0]} with hunter2")


class TestRequestIds:
    @pytest.mark.parametrize(
        ("method", "path", "content", "status"),
        [
            ("GET", "/healthz", None, 200),
            ("GET", f"{ITEMS}?namespace=a&key=b", None, 200),
            ("GET", "/nowhere", None, 404),
            ("POST", "/healthz", None, 405),
            ("PUT", ITEMS, "{}", 422),
        ],
    )
    async def test_every_answer_has_one_of_its_own(
        self,
        shared_client: httpx2.AsyncClient,
        method: str,
        path: str,
        content: str | None,
        status: int,
    ) -> None:
        answers = [await shared_client.request(method, path, content=content) for _ in range(2)]
        ids = [answer.headers.get_list("x-request-id") for answer in answers]
        assert {answer.status_code for answer in answers} == {status}
        assert [[len(own) for own in found] for found in ids] == [[16], [16]]
        assert ids[0] != ids[1]

    @pytest.mark.parametrize("own", ["a", "0f8fad5b-d9cb", "x" * 128, "A_b.c:d-1"])
    async def test_the_clients_own_is_kept(
        self, shared_client: httpx2.AsyncClient, own: str
    ) -> None:
        for path in ("/healthz", "/nowhere"):
            response = await shared_client.get(path, headers={"X-Request-ID": own})
            assert response.headers["x-request-id"] == own

    @pytest.mark.parametrize("own", ["", "x" * 129, "a b", "a\tb", "<script>", "a%0d", "\xe9"])
    async def test_one_that_could_harm_a_log_is_replaced(
        self, shared_client: httpx2.AsyncClient, own: str
    ) -> None:
        headers = {b"x-request-id": own.encode("latin-1")}
        response = await shared_client.get("/healthz", headers=headers)
        assert response.headers["x-request-id"] != own
        assert len(response.headers["x-request-id"]) == 16


class TestInternalErrors:
    @pytest.fixture
    async def broken(
        self, settings: Settings, clock: FrozenClock
    ) -> AsyncIterator[httpx2.AsyncClient]:
        app = create_app(settings, embedder=BrokenEmbedder(), clock=clock)
        async with running(app) as client:
            yield client

    async def test_a_500_shows_no_internals_and_stores_nothing(
        self, broken: httpx2.AsyncClient
    ) -> None:
        response = await broken.put(ITEMS, json=PUT, headers={"x-request-id": "mine"})
        problem = assert_problem(response, 500, "internal_error")
        assert response.headers["x-request-id"] == "mine"
        assert "x-request-id" in problem["detail"]
        for internal in ("hunter2", "RuntimeError", "ramen", "Traceback", "app/", ".py"):
            assert internal not in response.text
        found = await broken.get(ITEMS, params={"namespace": "users", "key": "food"})
        assert found.json() is None
        assert (await broken.put(ITEMS, json={**PUT, "index": False})).status_code == 204

    async def test_the_log_has_the_cause_and_the_id(
        self, settings: Settings, capfd: pytest.CaptureFixture[str]
    ) -> None:
        chosen = settings.model_copy(update={"log_format": "json"})
        async with running(create_app(chosen, embedder=BrokenEmbedder())) as client:
            await client.put(ITEMS, json=PUT, headers={"x-request-id": "mine"})
        lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
        failed, answered = (line for line in lines if line.get("request_id") == "mine")
        assert "RuntimeError: cannot embed" in failed["exception"]
        assert failed["path"] == answered["path"] == ITEMS
        assert answered["status"] == 500


class TestTooLarge:
    @pytest.fixture
    async def small(
        self, settings: Settings, embedder: FakeEmbedder
    ) -> AsyncIterator[httpx2.AsyncClient]:
        chosen = settings.model_copy(update={"max_body_bytes": 4096})
        async with running(create_app(chosen, embedder=embedder)) as client:
            yield client

    def body(self, size: int) -> bytes:
        text = json.dumps({**PUT, "value": {"text": ""}})
        return json.dumps({**PUT, "value": {"text": "x" * (size - len(text))}}).encode()

    async def test_the_limit_itself_is_taken_and_a_byte_more_is_not(
        self, small: httpx2.AsyncClient
    ) -> None:
        assert (await put_text(small, self.body(4096))).status_code == 204
        problem = assert_problem(await put_text(small, self.body(4097)), 413, "body_too_large")
        assert "4,096 bytes" in problem["detail"]

    async def test_a_missing_or_understated_length_helps_nobody(
        self, small: httpx2.AsyncClient
    ) -> None:
        sent = 0

        async def endless() -> AsyncIterator[bytes]:
            nonlocal sent
            while True:
                sent += 1
                assert sent < 100, "the server reads on after the limit"
                yield b" " * 1024

        assert_problem(await small.put(ITEMS, content=endless()), 413, "body_too_large")
        response = await put_text(small, self.body(8192), **{"content-length": "10"})
        assert_problem(response, 413, "body_too_large")


def item(value: str = "1", more: str = "") -> str:
    return f'{{"namespace": ["a"], "key": "k", "value": {{"v": {value}}}{more}}}'


BODIES = {
    "nothing": "",
    "null": "null",
    "a list": "[]",
    "a text": '"text"',
    "a number": "17",
    "nonsense": "nonsense",
    "cut off": '{"namespace":',
    "a comma at the end": '{"namespace": ["users"],}',
    "single quotes": "{'key': 1}",
    "a byte order mark": "\ufeff{}",
    "NUL bytes": b"\x00",
    "not UTF-8": b'{"namespace": ["a"], "key": "\xff", "value": {}}',
    "half a surrogate pair in UTF-8": b'{"key": "\xed\xa0\x80"}',
    "too many values": item("[" * 100_000 + "]" * 100_000),
    "lists nested too deep": item("[" * 65 + "]" * 65),
    "objects nested too deep": item('{"a":' * 1_000 + "1" + "}" * 1_000),
    "objects nested beyond parsing": item('{"a":' * 50_000 + "1" + "}" * 50_000),
    "an integer too long": item("9" * 1_001),
    "an integer beyond Python's parsing": item("9" * 4_301),
    "a huge integer": item("9" * 100_000),
    "infinity as an exponent": item("-1e400"),
    "not a number": item("NaN"),
    "infinity": item("-Infinity"),
    "a truth value for a number": item(more=', "importance": true'),
    "text for a number": item(more=', "ttl": "5"'),
    "a lifetime of zero": item(more=', "ttl": 1e-999'),
    "a number for a time": item(more=', "valid_from": 0'),
    "seconds for a time": item(more=', "valid_from": "1700000000"'),
    "before year 1": item(more=', "valid_from": "0001-01-01T00:00:00+01:00"'),
    "after year 9999": item(more=', "valid_to": "9999-12-31T23:59:59-01:00"'),
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_a_bad_item_is_refused(shared_client: httpx2.AsyncClient, body: str | bytes) -> None:
    response = await put_text(shared_client, body)
    assert response.status_code in {400, 422}
    assert_problem(response, response.status_code)


SEARCH, NAMESPACES = f"{ITEMS}/search", "/v1/store/namespaces"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", ITEMS, '{"namespace": ["@"], "key": "k", "value": {}}'),
        ("PUT", ITEMS, '{"namespace": ["a"], "key": "@", "value": {}}'),
        ("PUT", ITEMS, '{"namespace": ["a"], "key": "k", "value": {"a": "@"}}'),
        ("PUT", ITEMS, '{"namespace": ["a"], "key": "k", "value": {"@": "a"}}'),
        ("PUT", ITEMS, '{"namespace": ["a"], "key": "k", "value": {}, "index": ["@"]}'),
        (
            "PUT",
            ITEMS,
            '{"namespace": ["a"], "key": "k", "value": {}, "source": {"thread_id": "@"}}',
        ),
        ("POST", SEARCH, '{"query": "@"}'),
        ("POST", SEARCH, '{"namespace_prefix": ["@"]}'),
        ("POST", SEARCH, '{"filter": {"@": 1}}'),
        ("POST", SEARCH, '{"filter": {"a": "@"}}'),
        ("POST", SEARCH, '{"@": 1}'),
        ("POST", NAMESPACES, '{"prefix": ["@"]}'),
        ("POST", NAMESPACES, '{"suffix": ["@"]}'),
    ],
)
async def test_a_character_that_cannot_be_stored(
    shared_client: httpx2.AsyncClient, method: str, path: str, body: str
) -> None:
    for text in (r"\ud800", r"\udfff", r"\ud800\ud800", r"\u0000"):
        response = await shared_client.request(method, path, content=body.replace("@", text))
        assert_problem(response, 422)


@pytest.mark.parametrize("depth", [1_000, 20_000])
async def test_a_filter_that_is_nested_too_deep(
    shared_client: httpx2.AsyncClient, depth: int
) -> None:
    nested = '{"$not":' * depth + "{}" + "}" * depth
    response = await shared_client.post(f"{ITEMS}/search", content=f'{{"filter": {nested}}}')
    assert response.status_code in {400, 422}
    assert_problem(response, response.status_code)


@pytest.mark.parametrize(
    "path",
    [
        f"{ITEMS}?namespace=a",
        f"{ITEMS}?namespace=a&key=%00",
        f"{ITEMS}?namespace=%00&key=k",
        f"{ITEMS}?namespace=a..b&key=k",
        f"{ITEMS}?namespace=%5B%22%5Cud800%22%5D&key=k",
        f"{ITEMS}?namespace=" + "%5B" * 5_000 + "&key=k",
        f"{ITEMS}?namespace=" + "a." * 5_000 + "&key=b",
        f"{ITEMS}?namespace=a&key=" + "k" * 513,
        f"{ITEMS}?namespace=a&key=k&nonsense=1",
        f"{ITEMS}?namespace=a&key=k" + "&a=1" * 5_000,
        f"{ITEMS}?namespace=a&key=k&%00=1",
        f"{ITEMS}?namespace=a&key=k&refresh_ttl=maybe",
        f"{ITEMS}?namespace=a&key=k&as_of=yesterday",
        f"{ITEMS}?namespace=a&key=k&as_of=" + "9" * 400,
        f"{ITEMS}?namespace=a&key=k&as_of=9999-12-31T23:59:59-01:00",
        "/v1/threads/t/messages?cursor=9223372036854775807",
        "/v1/threads/t/messages?cursor=-1",
        "/v1/threads/%00",
        "/v1/jobs/job_0/changes?cursor=9007199254740991",
        "/v1/jobs?cursor=%00",
        "/v1/jobs?limit=1e9",
        "/v1/managers?cursor=%00",
    ],
    ids=lambda path: path[:60],
)
async def test_a_bad_path_or_query_is_refused(shared_client: httpx2.AsyncClient, path: str) -> None:
    assert_problem(await shared_client.get(path), 422, "invalid_request")


@pytest.mark.parametrize("version", ["-1", "0", "1.5", "9223372036854775808", "1e30", '"1"'])
async def test_a_bad_version_is_refused(shared_client: httpx2.AsyncClient, version: str) -> None:
    body = f'{{"namespace": ["users"], "key": "k", "version": {version}}}'
    response = await shared_client.post(f"{ITEMS}/restore", content=body)
    assert_problem(response, 422, "invalid_request")


async def test_every_mistake_in_a_body_is_listed(shared_client: httpx2.AsyncClient) -> None:
    response = await shared_client.put(ITEMS, json={"namespace": ["a", ""], "kye": "x", "value": 1})
    problem = assert_problem(response, 422, "invalid_request")
    assert {error["field"] for error in problem["errors"]} == {"namespace", "key", "kye", "value"}
    missing = await shared_client.post("/v1/store/namespaces")
    assert [error["field"] for error in missing.json()["errors"]] == ["body"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "x", "/"])
async def test_another_content_type_is_answered_with_the_one_to_send(
    shared_client: httpx2.AsyncClient, kind: str
) -> None:
    response = await put_text(shared_client, json.dumps(PUT), **{"content-type": kind})
    problem = assert_problem(response, 422, "invalid_request")
    assert "Content-Type: application/json" in problem["detail"]


async def test_a_body_without_a_content_type_is_read(client: httpx2.AsyncClient) -> None:
    assert (await client.put(ITEMS, content=json.dumps(PUT))).status_code == 204


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/store", "/v1/store/itemz", "/%00", "/v1/store/items/x"]
)
async def test_an_unknown_path(shared_client: httpx2.AsyncClient, path: str) -> None:
    problem = assert_problem(await shared_client.get(path), 404, "no_such_route")
    assert "/docs" in problem["detail"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        *((method, ITEMS, "DELETE, GET, PATCH, PUT") for method in ("OPTIONS", "POST", "ANY")),
        ("PUT", "/v1/jobs/extract", "POST"),
        ("PUT", "/v1/jobs/one", "GET"),
        ("PUT", "/v1/threads/a%2Fb", "DELETE, GET"),
        ("PUT", "/v1/threads/a%2Fmessages", "DELETE, GET"),
        ("PUT", "/v1/threads/a%2Fb/messages", "GET, POST"),
        ("PUT", "/v1/%6Aobs/one", "GET"),
    ],
)
async def test_another_method_is_answered_with_those_of_the_route(
    shared_client: httpx2.AsyncClient, method: str, path: str, allowed: str
) -> None:
    response = await shared_client.request(method, path)
    assert_problem(response, 405, "method_not_allowed")
    assert response.headers["allow"] == allowed


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/v1/ok"])
async def test_probes(shared_client: httpx2.AsyncClient, path: str) -> None:
    response = await shared_client.get(path)
    assert (response.status_code, response.json()["ok"]) == (200, True)


async def test_an_interrupted_request_is_answered_with_503() -> None:
    sent: list[Message] = []

    async def waits(_scope: Scope, _receive: Receive, _send: Send) -> None:
        await asyncio.sleep(60)

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    request = asyncio.create_task(RequestContext(waits)(scope, receive, send))
    await asyncio.sleep(0)
    request.cancel()
    await request
    assert sent[0]["status"] == 503
    assert dict(sent[0]["headers"])[b"retry-after"] == b"5"
    assert json.loads(sent[1]["body"])["code"] == "shutting_down"


async def test_an_answer_without_a_body_names_no_content_type(client: httpx2.AsyncClient) -> None:
    await client.post("/v1/threads/t/messages", json={"messages": [["user", "Hi"]]})
    for path in ("prompts/p", "prompts/p/labels/l", "managers/m", "threads/t"):
        response = await client.delete(f"/v1/{path}")
        assert (response.status_code, response.content) == (204, b"")
        assert "content-type" not in response.headers
