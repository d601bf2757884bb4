import httpx2
import pytest

from app.auth.access import ALL_GRANTED, Grant, Token, Verb
from app.auth.service import KeyService
from tests.support.app import Store
from tests.support.routes import ANYWHERE, HIDDEN, PLACE, REQUESTS, call

pytestmark = pytest.mark.slow

OPERATIONS = list(REQUESTS)

SUCCESS = {200, 201, 202, 204}


async def key_with(keys: KeyService, *grants: Grant, root: tuple[str, ...] = ()) -> dict[str, str]:
    token = await keys.create("test", root=root, grants=grants, expires_at=None)
    return {"x-api-key": str(token)}


def assert_problem(response: httpx2.Response, status: int, code: str) -> str:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-request-id"]
    problem = response.json()
    assert problem["status"] == status
    assert problem["code"] == code
    assert isinstance(problem["detail"], str)
    return str(problem["detail"])


async def test_without_any_key_everything_is_allowed(client: httpx2.AsyncClient) -> None:
    for operation in OPERATIONS:
        response = await call(client, operation)
        assert response.status_code in SUCCESS, f"{operation}: {response.text}"


async def test_a_key_with_every_verb_may_do_everything(
    client: httpx2.AsyncClient, keys: KeyService
) -> None:
    headers = await key_with(keys, Grant((), frozenset(Verb)))
    for operation in OPERATIONS:
        response = await call(client, operation, headers)
        assert response.status_code in SUCCESS, f"{operation}: {response.text}"


async def test_every_route_wants_a_key_once_there_is_one(
    client: httpx2.AsyncClient, keys: KeyService
) -> None:
    await key_with(keys, *ALL_GRANTED)
    for operation in (*OPERATIONS, *HIDDEN):
        response = await call(client, operation)
        assert_problem(response, 401, "unauthenticated")
        assert response.headers["www-authenticate"] == "Bearer"


async def test_a_request_without_a_key_is_not_read_further(
    client: httpx2.AsyncClient, keys: KeyService
) -> None:
    await key_with(keys, *ALL_GRANTED)
    response = await client.put("/v1/store/items", json={"no": "such field"})
    assert_problem(response, 401, "unauthenticated")


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/v1/ok", "/docs", "/openapi.json"])
async def test_open_routes_stay_open(
    client: httpx2.AsyncClient, keys: KeyService, path: str
) -> None:
    await key_with(keys, *ALL_GRANTED)
    assert (await client.get(path)).status_code == 200


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_key_without_the_verb_is_refused(
    client: httpx2.AsyncClient, keys: KeyService, operation: str
) -> None:
    verb = REQUESTS[operation][2]
    headers = await key_with(keys, Grant((), frozenset(Verb) - {verb}))
    detail = assert_problem(await call(client, operation, headers), 403, "forbidden")
    where = ("anywhere", 'in namespace ["users"')  # a batch is read before its verbs are known
    assert any(f"no grant to {verb} {place}" in detail for place in where)


@pytest.mark.parametrize("operation", [name for name in OPERATIONS if name not in ANYWHERE])
async def test_a_key_for_another_namespace_is_refused(
    client: httpx2.AsyncClient, keys: KeyService, operation: str
) -> None:
    headers = await key_with(
        keys,
        Grant(("user",), frozenset(Verb)),
        Grant(("users2",), frozenset(Verb)),
        Grant(("users", "alice", "private"), frozenset(Verb)),
    )
    assert_problem(await call(client, operation, headers), 403, "forbidden")


async def test_a_refusal_repeats_no_namespace_that_cannot_be(
    client: httpx2.AsyncClient, keys: KeyService
) -> None:
    headers = await key_with(keys, Grant(("users",), frozenset({Verb.WRITE})))
    body = {"namespace": ["x" * 1_000_000], "key": "k", "value": {}}
    response = await client.put("/v1/store/items", headers=headers, json=body)
    assert_problem(response, 422, "invalid_request")
    assert len(response.content) < 1_000


@pytest.mark.parametrize("operation", HIDDEN)
async def test_what_a_key_may_not_see_is_not_there(
    client: httpx2.AsyncClient, keys: KeyService, operation: str
) -> None:
    headers = await key_with(keys, *ALL_GRANTED)
    assert_problem(await call(client, operation, headers), 404, HIDDEN[operation][2])


async def test_a_batch_asks_for_the_verb_of_each_operation(
    client: httpx2.AsyncClient, keys: KeyService
) -> None:
    headers = await key_with(keys, Grant((), frozenset({Verb.READ})))
    operations = [
        {"op": "get", **PLACE},
        {"op": "put", **PLACE, "value": {}},
        {"op": "delete", **PLACE},
        {"op": "search", "namespace_prefix": ["users"]},
        {"op": "list_namespaces"},
    ]
    response = await client.post(
        "/v1/store/batch", headers=headers, json={"operations": operations, "atomic": False}
    )
    assert response.status_code == 200
    codes = [one.get("problem", {}).get("code") for one in response.json()["results"]]
    assert codes == [None, "forbidden", "forbidden", None, None]
    response = await client.post(
        "/v1/store/batch", headers=headers, json={"operations": operations}
    )
    assert assert_problem(response, 403, "forbidden").startswith("operations[1]: ")


@pytest.mark.parametrize("pattern", [["*"], ["*", "alice"], [], None])
async def test_a_wildcard_does_not_reach_beyond_a_grant(
    client: httpx2.AsyncClient, keys: KeyService, pattern: list[str] | None
) -> None:
    headers = await key_with(keys, Grant(("users",), frozenset(Verb)))
    response = await client.post("/v1/store/namespaces", headers=headers, json={"prefix": pattern})
    assert_problem(response, 403, "forbidden")


async def test_a_root_confines_and_is_not_seen(
    client: httpx2.AsyncClient, keys: KeyService
) -> None:
    everything = Store(client, await key_with(keys, *ALL_GRANTED))
    acme = Store(client, await key_with(keys, *ALL_GRANTED, root=("tenants", "acme")))
    await everything.put(["tenants", "acme"], "at-root", {"n": 0})
    await everything.put(["tenants", "acme2", "users"], "food", {"n": 1})
    await everything.put(["users"], "food", {"n": 2})
    await acme.put(["users"], "food", {"n": 3})

    assert [item["value"] for item in await acme.search(["users"])] == [{"n": 3}]
    assert {tuple(item["namespace"]) for item in await acme.search([])} == {(), ("users",)}
    assert await acme.namespaces() == [[], ["users"]]
    assert (await acme.get(["users"], "food"))["namespace"] == ["users"]
    assert await acme.get(["tenants", "acme", "users"], "food") is None
    assert (await everything.get(["tenants", "acme", "users"], "food"))["value"] == {"n": 3}
    await acme.delete(["users"], "food")
    assert (await everything.get(["users"], "food"))["value"] == {"n": 2}


async def test_history_names_the_key_but_not_its_secret(
    client: httpx2.AsyncClient, keys: KeyService
) -> None:
    token = await keys.create("app", root=(), grants=ALL_GRANTED, expires_at=None)
    store = Store(client, {"x-api-key": str(token)})
    await store.put(["users"], "food", {})
    assert [past["actor"] for past in await store.versions(["users"], "food")] == [f"mk_{token.id}"]


class TestHeaders:
    @pytest.fixture
    async def token(self, keys: KeyService) -> Token:
        return await keys.create("test", root=(), grants=ALL_GRANTED, expires_at=None)

    async def status(self, client: httpx2.AsyncClient, headers: dict[str, str]) -> int:
        return (await call(client, "get_item", headers)).status_code

    async def test_either_header_will_do(self, client: httpx2.AsyncClient, token: Token) -> None:
        assert await self.status(client, {"x-api-key": str(token)}) == 200
        assert await self.status(client, {"X-Api-Key": str(token)}) == 200
        assert await self.status(client, {"authorization": f"Bearer {token}"}) == 200
        assert await self.status(client, {"authorization": f"bearer {token}"}) == 200

    async def test_other_schemes_will_not(self, client: httpx2.AsyncClient, token: Token) -> None:
        assert await self.status(client, {"authorization": str(token)}) == 401
        assert await self.status(client, {"authorization": f"Basic {token}"}) == 401
        assert await self.status(client, {"cookie": f"x-api-key={token}"}) == 401

    async def test_x_api_key_counts_when_both_are_sent(
        self, client: httpx2.AsyncClient, token: Token
    ) -> None:
        both = {"x-api-key": str(token), "authorization": "Bearer something-else"}
        assert await self.status(client, both) == 200
        both = {"x-api-key": "something-else", "authorization": f"Bearer {token}"}
        assert await self.status(client, both) == 401

    @pytest.mark.parametrize(
        "text",
        [
            "mk_ab_",
            "mk_\x00_s",
            "mk_" + "a" * 5000 + "_s",
            "mk_ab_" + "\xff" * 20,
            "'; DROP TABLE x",
        ],
    )
    async def test_garbage_is_a_401(
        self, client: httpx2.AsyncClient, keys: KeyService, text: str
    ) -> None:
        await key_with(keys, *ALL_GRANTED)
        headers = {b"x-api-key": text.encode("latin-1")}
        response = await client.get("/v1/store/items", headers=headers)
        detail = assert_problem(response, 401, "unauthenticated")
        assert text not in detail

    async def test_a_refusal_never_repeats_the_secret(
        self, client: httpx2.AsyncClient, token: Token, keys: KeyService
    ) -> None:
        await keys.revoke(token.id)
        for secret in (token.secret, Token.generate().secret):
            headers = {"x-api-key": f"mk_{token.id}_{secret}"}
            response = await call(client, "get_item", headers)
            assert secret not in assert_problem(response, 401, "unauthenticated")
