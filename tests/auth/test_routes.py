import httpx2
import pytest

from app.auth.access import ALL_GRANTED, Verb
from app.auth.service import KeyService
from tests.support.app import Store
from tests.support.keys import actor_of, assert_problem, grant, key_with
from tests.support.routes import ANYWHERE, HIDDEN, PLACE, REQUESTS, call

pytestmark = pytest.mark.slow

SUCCESS = {200, 201, 202, 204}


async def test_without_any_key_everything_is_allowed(client: httpx2.AsyncClient) -> None:
    for operation in REQUESTS:
        response = await call(client, operation)
        assert response.status_code in SUCCESS, f"{operation}: {response.text}"


async def test_a_key_with_every_verb_may_do_everything(
    client: httpx2.AsyncClient, keys: KeyService
) -> None:
    headers = await key_with(keys, grant(Verb))
    for operation in REQUESTS:
        response = await call(client, operation, headers)
        assert response.status_code in SUCCESS, f"{operation}: {response.text}"


async def test_open_routes_stay_open(client: httpx2.AsyncClient, keys: KeyService) -> None:
    await key_with(keys)
    for path in ("/healthz", "/readyz", "/v1/ok", "/docs", "/openapi.json"):
        assert (await client.get(path)).status_code == 200


async def test_a_key_without_the_verb_is_refused(
    client: httpx2.AsyncClient, keys: KeyService
) -> None:
    without = {verb: await key_with(keys, grant(set(Verb) - {verb})) for verb in Verb}
    where = ("anywhere", 'in namespace ["users"')  # a batch is read before its verbs are known
    for operation, (_, _, verb, _) in REQUESTS.items():
        detail = assert_problem(await call(client, operation, without[verb]), 403, "forbidden")
        assert any(f"no grant to {verb} {place}" in detail for place in where), operation


async def test_a_key_for_another_namespace_is_refused(
    client: httpx2.AsyncClient, keys: KeyService
) -> None:
    places = (("user",), ("users2",), ("users", "alice", "private"))
    headers = await key_with(keys, *(grant(Verb, *labels) for labels in places))
    for operation in REQUESTS.keys() - ANYWHERE:
        assert_problem(await call(client, operation, headers), 403, "forbidden")


async def test_a_refusal_does_not_repeat_a_bad_namespace(
    client: httpx2.AsyncClient, keys: KeyService
) -> None:
    headers = await key_with(keys, grant({Verb.WRITE}, "users"))
    body = {"namespace": ["x" * 1_000_000], "key": "k", "value": {}}
    response = await client.put("/v1/store/items", headers=headers, json=body)
    assert_problem(response, 422, "invalid_request")
    assert len(response.content) < 1_000


async def test_a_missing_thing_is_not_found(client: httpx2.AsyncClient, keys: KeyService) -> None:
    headers = await key_with(keys)
    for operation, (_, _, code, _) in HIDDEN.items():
        assert_problem(await call(client, operation, headers), 404, code)


async def test_a_batch_needs_the_verb_of_each_operation(
    client: httpx2.AsyncClient, keys: KeyService
) -> None:
    headers = await key_with(keys, grant({Verb.READ}))
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


async def test_a_wildcard_does_not_reach_beyond_a_grant(
    client: httpx2.AsyncClient, keys: KeyService
) -> None:
    headers = await key_with(keys, grant(Verb, "users"))
    for pattern in (["*"], ["*", "alice"], [], None):
        body = {"prefix": pattern}
        response = await client.post("/v1/store/namespaces", headers=headers, json=body)
        assert_problem(response, 403, "forbidden")


async def test_history_names_the_key_but_not_its_secret(
    client: httpx2.AsyncClient, keys: KeyService
) -> None:
    headers = await key_with(keys)
    store = Store(client, headers)
    await store.put(["users"], "food", {})
    actor = actor_of(headers)
    assert [past["actor"] for past in await store.versions(["users"], "food")] == [actor]


async def test_a_key_is_read_from_either_header(
    client: httpx2.AsyncClient, keys: KeyService
) -> None:
    key = (await key_with(keys))["x-api-key"]
    for headers, status in (
        ({"X-Api-Key": key}, 200),
        ({"authorization": f"Bearer {key}"}, 200),
        ({"authorization": f"bearer {key}"}, 200),
        ({"authorization": key}, 401),
        ({"authorization": f"Basic {key}"}, 401),
        ({"cookie": f"x-api-key={key}"}, 401),
        ({"x-api-key": key, "authorization": "Bearer other"}, 200),
        ({"x-api-key": "other", "authorization": f"Bearer {key}"}, 401),
    ):
        assert (await call(client, "get_item", headers)).status_code == status, headers


async def test_a_refused_key_is_not_repeated(client: httpx2.AsyncClient, keys: KeyService) -> None:
    token = await keys.create("test", root=(), grants=ALL_GRANTED, expires_at=None)
    await keys.revoke(token.id)
    garbage = ["mk_ab_", "mk_\x00_s", "mk_" + "a" * 5000 + "_s", "mk_ab_" + "\xff" * 20]
    texts = (*garbage, "'; DROP TABLE x", str(token), f"mk_{token.id}_wrong-secret")
    for text in texts:
        headers = {b"x-api-key": text.encode("latin-1")}
        response = await client.get("/v1/store/items", headers=headers)
        detail = assert_problem(response, 401, "unauthenticated")
        assert text not in detail
        assert token.secret not in detail
        assert "wrong-secret" not in detail
