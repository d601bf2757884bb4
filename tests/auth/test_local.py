"""Without keys, only programs and pages of this machine are answered."""

import httpx2
import pytest

from app.auth.service import KeyService
from tests.support.keys import assert_problem, key_with
from tests.support.routes import HIDDEN, REQUESTS, call

pytestmark = pytest.mark.slow


def assert_not_local(response: httpx2.Response) -> None:
    assert "keys create" in assert_problem(response, 403, "not_local")


async def test_no_route_answers_under_a_foreign_name(client: httpx2.AsyncClient) -> None:
    for operation in (*REQUESTS, *HIDDEN):
        assert_not_local(await call(client, operation, {"host": "memory.example.com"}))


async def test_only_names_of_this_machine_are_answered(client: httpx2.AsyncClient) -> None:
    local = "localhost LOCALHOST:8080 127.0.0.1 127.8.0.1:80 [::1]:80 app.localhost"
    for host in local.split():
        assert (await call(client, "get_item", {"host": host})).status_code == 200, host
    foreign = "evil.example evil.example:8080 localhost.evil.example notlocalhost 127.0.0.1.de"
    for host in (*foreign.split(), "10.0.0.1", "[::2]", "localhost:80:80", ""):
        assert_not_local(await call(client, "get_item", {"host": host}))


async def test_only_pages_of_this_machine_write(client: httpx2.AsyncClient) -> None:
    foreign = ("http://evil.example", "null", "", "http://localhost.evil.de", "file://localhost")
    for origin in foreign:
        assert_not_local(await call(client, "put_item", {"origin": origin}))
    assert (await call(client, "get_item")).json() is None
    for origin in ("http://localhost:5173", "https://127.0.0.1"):
        assert (await call(client, "put_item", {"origin": origin})).status_code == 204


async def test_with_a_key_every_name_and_page_is_answered(
    client: httpx2.AsyncClient, keys: KeyService
) -> None:
    elsewhere = {"host": "memory.example.com", "origin": "https://app.example.com"}
    headers = elsewhere | await key_with(keys)
    assert (await call(client, "put_item", headers)).status_code == 204
