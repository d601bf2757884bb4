import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx2
import pytest
from typing_extensions import override

from app.clock import FrozenClock
from app.config import Settings
from app.main import create_app
from app.providers.embeddings.base import Vector
from app.providers.embeddings.fake import FakeEmbedder
from tests.support.app import running

pytestmark = pytest.mark.slow

ITEMS = "/v1/store/items"
PUT = {"namespace": ["users"], "key": "food", "value": {"text": "ramen"}}


def assert_problem(response: httpx2.Response, status: int, code: str | None = None) -> Any:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-request-id"]
    problem = response.json()
    assert {"type", "title", "status", "detail", "code"} <= problem.keys()
    assert problem["status"] == status
    assert problem["type"] == f"urn:memoryd:problem:{problem['code']}"
    assert isinstance(problem["detail"], str)
    assert problem["detail"]
    for error in problem.get("errors", ()):
        assert error.keys() == {"field", "detail"}
        assert isinstance(error["detail"], str)
    if code is not None:
        assert problem["code"] == code
    return problem


async def put_text(
    client: httpx2.AsyncClient, body: str | bytes, **headers: str
) -> httpx2.Response:
    return await client.put(
        ITEMS, content=body, headers={"content-type": "application/json", **headers}
    )


class BrokenEmbedder(FakeEmbedder):
    """Fails as a mistake of ours would: with an error nobody expects."""

    @override
    async def embed(self, texts: Sequence[str], *, urgent: bool = False) -> list[Vector]:
        raise RuntimeError(f"cannot embed {texts[0]} with hunter2")


@pytest.fixture
async def broken(settings: Settings, clock: FrozenClock) -> AsyncIterator[httpx2.AsyncClient]:
    async with running(create_app(settings, embedder=BrokenEmbedder(), clock=clock)) as client:
        yield client


class TestRequestIds:
    @pytest.mark.parametrize(
        ("method", "path", "content", "status"),
        [
            ("GET", "/healthz", None, 200),
            ("GET", f"{ITEMS}?namespace=a&key=b", None, 200),
            ("PUT", ITEMS, json.dumps(PUT), 204),
            ("GET", "/nowhere", None, 404),
            ("POST", "/healthz", None, 405),
            ("PUT", ITEMS, "{}", 422),
            ("GET", ITEMS, None, 422),
        ],
    )
    async def test_every_answer_has_one(
        self, client: httpx2.AsyncClient, method: str, path: str, content: str | None, status: int
    ) -> None:
        response = await client.request(method, path, content=content)
        assert response.status_code == status
        assert len(response.headers["x-request-id"]) == 16
        assert len(response.headers.get_list("x-request-id")) == 1

    async def test_each_request_gets_its_own(self, client: httpx2.AsyncClient) -> None:
        ids = {(await client.get("/healthz")).headers["x-request-id"] for _ in range(20)}
        assert len(ids) == 20

    @pytest.mark.parametrize(
        "own", ["a", "0f8fad5b-d9cb-469f-a165-70867728950e", "x" * 128, "A_b.c:d-1"]
    )
    async def test_the_clients_own_is_kept(self, client: httpx2.AsyncClient, own: str) -> None:
        for path in ("/healthz", "/nowhere"):
            response = await client.get(path, headers={"X-Request-ID": own})
            assert response.headers["x-request-id"] == own

    @pytest.mark.parametrize("own", ["", "x" * 129, "a b", "a\tb", "<script>", "a%0d", "\xe9"])
    async def test_one_that_could_harm_a_log_is_replaced(
        self, client: httpx2.AsyncClient, own: str
    ) -> None:
        headers = {b"x-request-id": own.encode("latin-1")}
        response = await client.get("/healthz", headers=headers)
        assert response.headers["x-request-id"] != own
        assert len(response.headers["x-request-id"]) == 16


class TestMistakesOfOurs:
    async def test_a_500_says_where_to_look_and_nothing_else(
        self, broken: httpx2.AsyncClient
    ) -> None:
        response = await broken.put(ITEMS, json=PUT, headers={"x-request-id": "mine"})
        problem = assert_problem(response, 500, "internal_error")
        assert response.headers["x-request-id"] == "mine"
        assert problem["title"] == "Internal error"
        assert "x-request-id" in problem["detail"]
        for internal in ("hunter2", "RuntimeError", "ramen", "Traceback", "app/", ".py"):
            assert internal not in response.text

    async def test_a_500_stores_nothing(self, broken: httpx2.AsyncClient) -> None:
        assert_problem(await broken.put(ITEMS, json=PUT), 500)
        found = await broken.get(ITEMS, params={"namespace": "users", "key": "food"})
        assert found.json() is None

    async def test_the_log_has_the_cause_and_the_id(
        self, settings: Settings, clock: FrozenClock, capfd: pytest.CaptureFixture[str]
    ) -> None:
        chosen = settings.model_copy(update={"log_format": "json"})
        app = create_app(chosen, embedder=BrokenEmbedder(), clock=clock)
        async with running(app) as client:
            await client.put(ITEMS, json=PUT, headers={"x-request-id": "mine"})
        lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
        failed, answered = (line for line in lines if line.get("request_id") == "mine")
        assert "RuntimeError: cannot embed" in failed["exception"]
        assert failed["path"] == answered["path"] == ITEMS
        assert answered["status"] == 500

    async def test_the_next_request_is_served(self, broken: httpx2.AsyncClient) -> None:
        assert_problem(await broken.put(ITEMS, json=PUT), 500)
        assert (await broken.put(ITEMS, json={**PUT, "index": False})).status_code == 204


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

    async def test_the_limit_itself_is_taken(self, small: httpx2.AsyncClient) -> None:
        assert len(self.body(4096)) == 4096
        assert (await put_text(small, self.body(4096))).status_code == 204

    async def test_a_byte_more_is_not(self, small: httpx2.AsyncClient) -> None:
        problem = assert_problem(await put_text(small, self.body(4097)), 413, "body_too_large")
        assert "4,096 bytes" in problem["detail"]

    async def test_nor_without_a_length(self, small: httpx2.AsyncClient) -> None:
        sent = 0

        async def endless() -> AsyncIterator[bytes]:
            nonlocal sent
            while True:
                sent += 1
                assert sent < 100, "the server reads on after the limit"
                yield b" " * 1024

        response = await small.put(
            ITEMS, content=endless(), headers={"content-type": "application/json"}
        )
        assert_problem(response, 413, "body_too_large")

    async def test_nor_with_a_length_that_understates(self, small: httpx2.AsyncClient) -> None:
        response = await put_text(small, self.body(8192), **{"content-length": "10"})
        assert_problem(response, 413, "body_too_large")


class TestUnreadable:
    @pytest.mark.parametrize(
        "body",
        [
            "{",
            "nonsense",
            '{"namespace": ["users"],}',
            "{'key': 1}",
            '{"a": NaN',
            "\ufeff{}",
            "",
            "null",
            "[]",
            '"text"',
            "17",
        ],
    )
    async def test_what_is_not_a_json_object(self, client: httpx2.AsyncClient, body: str) -> None:
        response = await put_text(client, body)
        assert response.status_code in {400, 422}
        assert_problem(response, response.status_code)

    async def test_a_body_that_is_missing(self, client: httpx2.AsyncClient) -> None:
        response = await client.post("/v1/store/namespaces")
        assert_problem(response, 422, "invalid_request")
        assert response.json()["errors"] == [
            {
                "field": "body",
                "detail": "The body is missing; send a JSON object with the fields of this route.",
            }
        ]

    @pytest.mark.parametrize(
        "body", [b"\xff\xfe", b'{"key": "\xff"}', b'{"key": "\xed\xa0\x80"}', b"\x00", b"\x80" * 99]
    )
    async def test_what_is_not_utf_8(self, client: httpx2.AsyncClient, body: bytes) -> None:
        response = await put_text(client, body)
        assert response.status_code in {400, 422}
        assert_problem(response, response.status_code)

    @pytest.mark.parametrize("depth", [100, 1_000, 100_000])
    @pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
    async def test_what_is_nested_too_deeply(
        self, client: httpx2.AsyncClient, depth: int, opening: str, closing: str
    ) -> None:
        nested = f"{opening * depth}1{closing * depth}"
        body = f'{{"namespace": ["users"], "key": "k", "value": {{"deep": {nested}}}}}'
        response = await put_text(client, body)
        assert response.status_code in {400, 422}
        problem = assert_problem(response, response.status_code)
        assert ("64 levels" if depth < 100_000 else "100,000 JSON values") in problem["detail"]

    @pytest.mark.parametrize("depth", [1_000, 20_000])
    async def test_a_filter_that_is_nested_too_deeply(
        self, client: httpx2.AsyncClient, depth: int
    ) -> None:
        nested = '{"$not":' * depth + "{}" + "}" * depth
        response = await client.post(
            f"{ITEMS}/search",
            content=f'{{"filter": {nested}}}',
            headers={"content-type": "application/json"},
        )
        assert response.status_code in {400, 422}
        assert_problem(response, response.status_code)

    @pytest.mark.parametrize("digits", [1_500, 4_300, 4_301, 100_000])
    async def test_a_huge_integer(self, client: httpx2.AsyncClient, digits: int) -> None:
        body = f'{{"namespace": ["users"], "key": "k", "value": {{"n": {"9" * digits}}}}}'
        response = await put_text(client, body)
        assert response.status_code in {400, 422}
        assert_problem(response, response.status_code)

    @pytest.mark.parametrize("number", ["1e400", "-1e400", "NaN", "Infinity", "-Infinity"])
    async def test_a_number_that_json_does_not_have(
        self, client: httpx2.AsyncClient, number: str
    ) -> None:
        body = f'{{"namespace": ["users"], "key": "k", "value": {{"n": {number}}}}}'
        assert_problem(await put_text(client, body), 422)

    @pytest.mark.parametrize("text", [r"\ud800", r"\udfff", r"\ud800\ud800", r"\u0000"])
    @pytest.mark.parametrize("place", ["namespace", "key", "value", "member", "index", "source"])
    async def test_a_character_that_cannot_be_stored(
        self, client: httpx2.AsyncClient, text: str, place: str
    ) -> None:
        body = json.dumps(
            {
                "namespace": ["@namespace@"],
                "key": "@key@",
                "value": {"@member@": "@value@"},
                "index": ["@index@"],
                "source": {"thread_id": "@source@"},
            }
        )
        body = body.replace(f"@{place}@", text).replace("@", "")
        assert_problem(await put_text(client, body), 422)

    @pytest.mark.parametrize("text", [r"\ud800", r"\u0000"])
    @pytest.mark.parametrize(
        ("path", "body"),
        [
            (f"{ITEMS}/search", '{"query": "@"}'),
            (f"{ITEMS}/search", '{"namespace_prefix": ["@"]}'),
            (f"{ITEMS}/search", '{"filter": {"@": 1}}'),
            (f"{ITEMS}/search", '{"filter": {"a": "@"}}'),
            (f"{ITEMS}/search", '{"@": 1}'),
            ("/v1/store/namespaces", '{"prefix": ["@"]}'),
            ("/v1/store/namespaces", '{"suffix": ["@"]}'),
        ],
    )
    async def test_a_character_that_cannot_be_looked_for(
        self, client: httpx2.AsyncClient, path: str, body: str, text: str
    ) -> None:
        response = await client.post(path, content=body.replace("@", text))
        assert_problem(response, 422)

    @pytest.mark.parametrize(
        "query",
        [
            "namespace=%00&key=a",
            "namespace=a&key=%00",
            "namespace=%ff&key=a",
            "namespace=a&key=%ed%a0%80",
            "namespace=a&key=b&nonsense=1",
            "namespace=a&key=b&as_of=yesterday",
            "namespace=a&key=b&refresh_ttl=perhaps",
            "namespace=a&key=b&as_of=" + "9" * 400,
            "namespace=" + "a." * 5000 + "&key=b",
            "namespace=[" + "[" * 5000 + "&key=b",
            "key=" + "b" * 5000,
            "namespace=a&key=b" + "&a=1" * 5000,
        ],
    )
    async def test_a_query_that_cannot_be(self, client: httpx2.AsyncClient, query: str) -> None:
        response = await client.get(f"{ITEMS}?{query}")
        if response.status_code != 200:  # %ff is read as U+FFFD, which is a character
            assert_problem(response, 422)

    @pytest.mark.parametrize(
        "version", ["-1", "0", "1.5", "9223372036854775808", "1e30", '"1"', "true"]
    )
    async def test_a_version_that_cannot_be(self, client: httpx2.AsyncClient, version: str) -> None:
        response = await client.post(
            f"{ITEMS}/restore",
            content=f'{{"namespace": ["users"], "key": "k", "version": {version}}}',
        )
        assert response.status_code in {404, 422}
        assert_problem(response, response.status_code)

    async def test_a_body_without_a_content_type_is_read(self, client: httpx2.AsyncClient) -> None:
        response = await client.put(ITEMS, content=json.dumps(PUT))
        assert response.status_code == 204

    @pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "x", "/"])
    async def test_another_content_type_says_which_to_send(
        self, client: httpx2.AsyncClient, kind: str
    ) -> None:
        response = await put_text(client, json.dumps(PUT), **{"content-type": kind})
        problem = assert_problem(response, 422, "invalid_request")
        assert "Content-Type: application/json" in problem["detail"]


class TestRoutes:
    async def test_an_unknown_path(self, client: httpx2.AsyncClient) -> None:
        for path in ("/", "/v1", "/v1/store", "/v1/store/itemz", "/%00", "/v1/store/items/x"):
            problem = assert_problem(await client.get(path), 404, "no_such_route")
            assert "/docs" in problem["detail"]

    async def test_a_method_that_a_path_does_not_take(self, client: httpx2.AsyncClient) -> None:
        response = await client.post(ITEMS)
        assert_problem(response, 405, "method_not_allowed")
        assert response.headers["allow"]

    async def test_every_mistake_in_a_body_is_listed(self, client: httpx2.AsyncClient) -> None:
        response = await client.put(ITEMS, json={"namespace": ["a", ""], "kye": "x", "value": 1})
        problem = assert_problem(response, 422, "invalid_request")
        assert {error["field"] for error in problem["errors"]} == {
            "namespace",
            "key",
            "kye",
            "value",
        }
        assert problem["detail"].endswith("(and 3 more)")


async def test_probes(client: httpx2.AsyncClient) -> None:
    for path in ("/healthz", "/readyz", "/v1/ok"):
        response = await client.get(path)
        assert (response.status_code, response.json()["ok"]) == (200, True)


async def test_an_answer_without_a_body_names_no_content_type(client: httpx2.AsyncClient) -> None:
    await client.post("/v1/threads/t/messages", json={"messages": [["user", "Hi"]]})
    for path in ("prompts/p", "prompts/p/labels/l", "managers/m", "threads/t"):
        response = await client.delete(f"/v1/{path}")
        assert (response.status_code, response.content) == (204, b"")
        assert "content-type" not in response.headers
