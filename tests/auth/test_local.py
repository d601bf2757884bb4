import httpx2
import pytest

from app.auth.access import ALL_GRANTED
from app.auth.service import KeyService
from tests.support.routes import HIDDEN, REQUESTS, call

pytestmark = pytest.mark.slow

ELSEWHERE = {"host": "memory.example.com", "origin": "https://app.example.com"}


def assert_not_local(response: httpx2.Response) -> None:
    assert response.status_code == 403, response.text
    assert response.json()["code"] == "not_local"
    assert "keys create" in response.json()["detail"]


class TestWithoutKeys:
    """Anybody's page in a browser here could be led to the server: it looks at who calls whom."""

    async def test_no_route_answers_under_a_foreign_name(self, client: httpx2.AsyncClient) -> None:
        for operation in (*REQUESTS, *HIDDEN):
            assert_not_local(await call(client, operation, {"host": "memory.example.com"}))

    @pytest.mark.parametrize(
        "host",
        ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.8.0.1:80", "[::1]:80", "app.localhost"],
    )
    async def test_this_machines_names_are_answered(
        self, client: httpx2.AsyncClient, host: str
    ) -> None:
        assert (await call(client, "get_item", {"host": host})).status_code == 200

    @pytest.mark.parametrize(
        "host",
        [
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "notlocalhost",
            "127.0.0.1.de",
            "10.0.0.1",
            "[::2]",
            "localhost:80:80",
            "",
        ],
    )
    async def test_other_names_are_not(self, client: httpx2.AsyncClient, host: str) -> None:
        assert_not_local(await call(client, "get_item", {"host": host}))

    @pytest.mark.parametrize("origin", ["http://localhost:5173", "https://127.0.0.1"])
    async def test_pages_of_this_machine_are_answered(
        self, client: httpx2.AsyncClient, origin: str
    ) -> None:
        assert (await call(client, "put_item", {"origin": origin})).status_code == 204

    @pytest.mark.parametrize(
        "origin",
        ["http://evil.example", "null", "", "http://localhost.evil.de", "file://localhost"],
    )
    async def test_pages_of_other_sites_write_nothing(
        self, client: httpx2.AsyncClient, origin: str
    ) -> None:
        assert_not_local(await call(client, "put_item", {"origin": origin}))
        assert (await call(client, "get_item")).json() is None


async def test_with_a_key_any_name_and_page_will_do(
    client: httpx2.AsyncClient, keys: KeyService
) -> None:
    token = await keys.create("test", root=(), grants=ALL_GRANTED, expires_at=None)
    headers = {**ELSEWHERE, "x-api-key": str(token)}
    assert (await call(client, "put_item", headers)).status_code == 204
