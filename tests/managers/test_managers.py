import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx2
import pytest

from app.auth.access import ALL_GRANTED, Grant, Verb
from app.auth.service import KeyService
from app.clock import FrozenClock
from app.config import Settings
from app.main import create_app
from app.providers.embedder import FakeEmbedder
from tests.support.app import running

pytestmark = pytest.mark.slow  # a request and a database each

URL = "/v1/managers"
NOW = "2026-01-01T12:00:00+00:00"
NOTE = {"type": "object", "properties": {"text": {"type": "string"}}}
FULL: dict[str, Any] = {
    "namespace": ["users", "user-{user_id}", "{{memories}}"],
    "kinds": [
        {"name": "profile"},
        {"name": "Note", "description": "A note.", "schema": NOTE, "singleton": False},
    ],
    "instructions": "Remember what Alice eats.",
    "model": "anthropic:claude",
    "strategy": "llm",
    "enable_inserts": True,
    "enable_updates": False,
    "enable_deletes": True,
    "max_steps": 10,
    "query_model": "openai:gpt",
    "query_limit": 0,
    "default": {"name": "Alice"},
    "phases": [{"instructions": "Tidy up.", "include_messages": True, "enable_deletes": None}],
    "apply": "review",
    "max_change_share": 0.25,
    "ttl_seconds": 0.5,
}


async def put(client: httpx2.AsyncClient, name: str, body: Any, **headers: str) -> httpx2.Response:
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return await client.put(f"{URL}/{name}", json=body, headers=named)


async def headers_of(
    keys: KeyService, *grants: Grant, root: tuple[str, ...] = ()
) -> dict[str, str]:
    token = await keys.create("test", root=root, grants=grants, expires_at=None)
    return {"x-api-key": str(token)}


def code_of(response: httpx2.Response, status: int) -> str:
    assert response.status_code == status, response.text
    return str(response.json()["code"])


def fields_of(response: httpx2.Response) -> list[str]:
    assert response.status_code == 422, response.text
    return [error["field"] for error in response.json()["errors"]]


async def test_models_must_be_allowed_when_stored_and_when_used(
    client: httpx2.AsyncClient, settings: Settings, embedder: FakeEmbedder
) -> None:
    for field in ("model", "query_model"):
        response = await put(client, "alice", {field: "openai:other"})
        assert code_of(response, 422) == "model_not_allowed"
        assert 'Allowed: "anthropic:claude", "openai:gpt".' in response.json()["detail"]
        assert (await client.get(f"{URL}/alice")).status_code == 404
    assert (await put(client, "notes", {"model": "openai:gpt"})).status_code == 201
    later = settings.model_copy(update={"llm": "anthropic:claude", "allowed_models": None})
    async with running(create_app(later, embedder=embedder)) as restarted:
        response = await extract(restarted, manager="notes")
        assert code_of(response, 422) == "model_not_allowed"
    assert code_of(await extract(client), 422) == "llm_not_configured"
    verbatim = {"manager_config": {"strategy": "verbatim"}, "namespace": ["talk"]}
    assert (await extract(client, **verbatim)).status_code == 202


async def test_a_manager_is_returned_as_it_was_sent_until_it_is_replaced(
    client: httpx2.AsyncClient, clock: FrozenClock
) -> None:
    expected = {"name": "m", "config": FULL, "version": 1, "created_at": NOW, "updated_at": NOW}
    created = await put(client, "m", FULL)
    assert (created.status_code, created.headers["etag"]) == (201, '"1"')
    assert created.json() == expected
    read = await client.get(f"{URL}/m")
    assert (read.status_code, read.headers["etag"], read.json()) == (200, '"1"', expected)
    clock.advance(timedelta(minutes=1))
    replaced = await put(client, "m", {})  # nothing has to be configured
    assert (replaced.status_code, replaced.headers["etag"]) == (200, '"2"')
    later = "2026-01-01T12:01:00+00:00"
    assert replaced.json() == expected | {"config": {}, "version": 2, "updated_at": later}
    for _ in range(2):
        assert (await client.delete(f"{URL}/m")).status_code == 204
        assert code_of(await client.get(f"{URL}/m"), 404) == "manager_not_found"
    assert (await put(client, "m", {})).status_code == 201


async def test_managers_are_listed_by_name_page_by_page(client: httpx2.AsyncClient) -> None:
    assert (await client.get(URL)).json() == {"managers": [], "next_cursor": None}
    names = ["B", "_", "a", "b", "c-1", "c.1"]
    for name in reversed(names):
        assert (await put(client, name, {})).status_code == 201
    everything = (await client.get(URL)).json()
    assert [manager["name"] for manager in everything["managers"]] == names
    assert everything["next_cursor"] is None
    pages: list[list[str]] = []
    cursor: dict[str, str | None] = {}
    for _ in range(3):
        page = (await client.get(URL, params={"limit": 2, **cursor})).json()
        pages.append([manager["name"] for manager in page["managers"]])
        cursor = {"cursor": page["next_cursor"]}
    assert pages == [["B", "_"], ["a", "b"], ["c-1", "c.1"]]
    assert cursor == {"cursor": None}
    bad = {"limit": ("0", "1001", "many"), "cursor": ("a b", ""), "offset": ("1",)}
    for field, values in bad.items():
        for value in values:
            assert fields_of(await client.get(URL, params={field: value})) == [field]


async def test_requests_obey_their_conditions(client: httpx2.AsyncClient) -> None:
    assert code_of(await put(client, "m", {}, if_match="*"), 412) == "precondition_failed"
    writes = (put(client, "m", {"query_limit": n}, if_none_match="*") for n in range(8))
    statuses = sorted(response.status_code for response in await asyncio.gather(*writes))
    assert statuses == [201] + [412] * 7
    writes = (put(client, "m", {"query_limit": n}, if_match='"1"') for n in range(8))
    statuses = sorted(response.status_code for response in await asyncio.gather(*writes))
    assert statuses == [200] + [412] * 7
    for if_none_match in ("*", '"2"'):
        response = await put(client, "m", {}, if_none_match=if_none_match)
        assert code_of(response, 412) == "precondition_failed"
        assert response.json()["version"] == 2
    assert (await put(client, "m", {}, if_match='"7", "2"')).status_code == 200
    assert fields_of(await put(client, "m", {}, if_match="1")) == ["If-Match"]
    response = await client.delete(f"{URL}/m", headers={"if-match": '"9"'})
    assert code_of(response, 412) == "precondition_failed"
    assert (await client.delete(f"{URL}/m", headers={"if-match": '"3"'})).status_code == 204


BAD_VALUES: dict[str, list[Any]] = {
    "name": ["m"],
    "kind": [["memory"]],
    "namespace": [[], "users", [""], ["{user"], ["{a}{b}"], ["a\x00"], ["a"] * 17],
    "kinds": [[], "memory", [{"name": "memory"}] * 2],
    "instructions": [5, "a\x00", "x" * 50_001],
    "model": ["claude", "anthropic:", "Mistral: large", "openai:a b"],
    "query_model": ["gpt"],
    "strategy": ["duplicates"],
    "enable_inserts": [1],
    "enable_updates": ["true"],
    "enable_deletes": ["no"],
    "max_steps": [0, 11, "3", True, 1.5],
    "query_limit": [-1, 101],
    "default": ["Alice", {}, {"content": "x", "mood": "y"}, {"content": "a\x00"}],
    "phases": [{}, [{"instructions": "x"}] * 11],
    "apply": ["later", True],
    "max_change_share": [1.1, -0.1, "0.5"],
    "ttl_seconds": [0, "60", 1e12],
}


BAD_MEMBERS: list[tuple[Any, list[str]]] = [
    ([], ["body"]),
    ("manager", ["body"]),
    (None, ["body"]),
    ({"namespace": [1]}, ["namespace[0]"]),
    ({"kinds": ["memori"]}, ["kinds[0]"]),
    ({"kinds": [{"name": "note"}]}, ["kinds[0]"]),
    ({"kinds": [{"name": "note", "json_schema": NOTE, "schema": NOTE}]}, ["kinds[0].json_schema"]),
    ({"phases": [{}]}, ["phases[0].instructions"]),
    ({"phases": [{"instructions": "x", "enable_insert": True}]}, ["phases[0].enable_insert"]),
    ({"phases": [{"instructions": "x", "include_messages": 0}]}, ["phases[0].include_messages"]),
    (
        {"namespace": ["{"], "kinds": ["memory", {"name": "y", "schema": 1}], "modle": "openai:x"},
        ["namespace", "kinds[0]", "kinds[1].schema", "modle"],
    ),
]


async def test_bad_configurations_are_refused_by_field(client: httpx2.AsyncClient) -> None:
    members: list[tuple[Any, list[str]]] = [
        ({name: bad}, [name]) for name, values in BAD_VALUES.items() for bad in values
    ]
    for body, fields in [*members, *BAD_MEMBERS]:
        assert fields_of(await put(client, "m", body)) == fields, body
    assert code_of(await client.get(f"{URL}/m"), 404) == "manager_not_found"
    for name in ("a b", "é", "a:b", "a%00", "0" * 129, "a%0A", "a@b"):
        assert fields_of(await put(client, name, {})) == ["name"]
        assert fields_of(await client.get(f"{URL}/{name}")) == ["name"]
        assert fields_of(await client.delete(f"{URL}/{name}")) == ["name"]


async def test_each_root_has_managers_of_its_own(
    client: httpx2.AsyncClient, keys: KeyService
) -> None:
    roots = [(), ("acme",), ("acme", "inner"), ("acme2",)]
    holders = [await headers_of(keys, *ALL_GRANTED, root=root) for root in roots]
    for number, headers in enumerate(holders):
        response = await client.put(f"{URL}/m", json={"query_limit": number}, headers=headers)
        assert response.status_code == 201
        only = f"only-{number}"
        assert (await client.put(f"{URL}/{only}", json={}, headers=headers)).status_code == 201
    await client.delete(f"{URL}/m", headers=holders[1])
    for number, headers in enumerate(holders):
        listed = (await client.get(URL, headers=headers)).json()["managers"]
        configs = {manager["name"]: manager["config"] for manager in listed}
        own = {"m": {"query_limit": number}, f"only-{number}": {}}
        assert configs == ({"only-1": {}} if number == 1 else own)
        for other in range(len(holders)):
            response = await client.get(f"{URL}/only-{other}", headers=headers)
            assert response.status_code == (200 if other == number else 404)


async def test_reading_takes_read_and_writing_admin_on_the_whole_root(
    client: httpx2.AsyncClient, keys: KeyService
) -> None:
    everything = await headers_of(keys, *ALL_GRANTED, root=("acme",))
    for grant, read, written in (
        (Grant((), frozenset({Verb.READ})), 200, 403),
        (Grant((), frozenset({Verb.ADMIN})), 403, 200),
        (Grant((), frozenset(Verb) - {Verb.READ, Verb.ADMIN}), 403, 403),
        (Grant(("users",), frozenset(Verb)), 403, 403),
    ):
        await client.put(f"{URL}/m", json={}, headers=everything)
        headers = await headers_of(keys, grant, root=("acme",))
        for url in (URL, f"{URL}/m"):
            assert (await client.get(url, headers=headers)).status_code == read
        response = await client.put(f"{URL}/m", json={}, headers=headers)
        assert response.status_code == written
        response = await client.delete(f"{URL}/m", headers=headers)
        assert response.status_code == {200: 204}.get(written, written)


async def test_every_route_needs_a_key(client: httpx2.AsyncClient, keys: KeyService) -> None:
    await headers_of(keys, *ALL_GRANTED)
    for response in (
        await client.get(URL),
        await client.get(f"{URL}/m"),
        await put(client, "m", {}),
        await client.delete(f"{URL}/m"),
        await client.post("/v1/jobs/extract", json={"messages": [["user", "x"]]}),
        await client.post("/v1/jobs/consolidate", json={"namespace": []}),
    ):
        assert code_of(response, 401) == "unauthenticated"


@pytest.fixture
async def with_model(
    settings: Settings, embedder: FakeEmbedder, clock: FrozenClock
) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of an application with a language model, which no test calls."""
    chosen = Settings(
        database_url=settings.database_url,
        llm="anthropic:claude",
        allowed_models=settings.allowed_models,
        ANTHROPIC_API_KEY="sk",
    )
    async with running(create_app(chosen, embedder=embedder, clock=clock)) as started:
        yield started


async def extract(client: httpx2.AsyncClient, headers: Any = None, **body: Any) -> httpx2.Response:
    sent = {"messages": [["user", "hi"]], **body}
    return await client.post("/v1/jobs/extract", json=sent, headers=headers)


async def test_extractions_and_consolidations_are_accepted(with_model: httpx2.AsyncClient) -> None:
    await put(with_model, "notes", {"namespace": ["users", "{user}"]})
    body = {"manager": "notes", "variables": {"user": "al"}, "thread_id": "t-1"}
    for _ in range(2):
        response = await extract(with_model, headers={"idempotency-key": "k"}, **body)
        assert response.status_code == 202, response.text
    job = response.json()
    assert response.headers["location"] == f"/v1/jobs/{job['id']}"
    shown = ("kind", "state", "namespace", "manager", "thread_id")
    assert [job[name] for name in shown] == ["extract", "queued", ["users", "al"], "notes", "t-1"]
    response = await with_model.post("/v1/jobs/consolidate", json={"namespace": ["users"]})
    assert response.status_code == 202, response.text
    job = response.json()
    assert (job["kind"], job["namespace"]) == ("consolidate", ["users"])
    assert len((await with_model.get("/v1/jobs")).json()["jobs"]) == 2


USERS = {"namespace": ["{id}"]}
BAD_EXTRACTIONS: list[tuple[dict[str, Any], str]] = [
    *(({"messages": bad}, "messages") for bad in ([], None, "hi", [["user", "hi"]] * 2001)),
    ({"messages": ["hi"]}, "messages[0]"),
    ({"messages": [["user", "hi"], {"role": "user", "content": 5}]}, "messages[1].content"),
    ({"messages": [{"role": "user", "id": "a"}] * 2}, "messages[1].id"),
    *(({"manager": bad}, "manager") for bad in ("a b", 5)),
    ({"manager_config": {"kinds": ["x"]}}, "manager_config.kinds[0]"),
    ({"manager_config": {"nmespace": ["x"]}}, "manager_config.nmespace"),
    *(({"namespace": bad}, "namespace") for bad in ([], ["a\x00"], "users")),
    ({"variables": {"user": 5}}, "variables.user"),
    ({"variables": []}, "variables"),
    ({"variables": {"user": "al"}}, "variables.user"),
    ({"manager_config": USERS, "variables": {"id": "al", "ID": "al"}}, "variables.ID"),
    ({"manager_config": USERS, "namespace": ["x"], "variables": {"id": "al"}}, "variables.id"),
    ({"manager_config": USERS}, "variables.id"),
    ({"manager_config": USERS, "variables": {"id": ""}}, "variables.id"),
    ({"manager_config": USERS, "variables": {"id": "langgraph"}}, "namespace[0]"),
    ({"namespace": ["langgraph", "a"]}, "namespace[0]"),
    ({"existing": "x"}, "existing"),
    ({"existing": [5]}, "existing[0]"),
    ({"existing": [{"content": {}}, {"content": "y"}]}, "existing[1].content"),
    ({"existing": [{"id": "a"}]}, "existing[0].content"),
    ({"existing": [{"id": "a", "content": {}}] * 2}, "existing[1].id"),
    ({"existing": [{"content": {}}], "namespace": ["users"]}, "existing"),
    ({"thread_id": ""}, "thread_id"),
    *(({"position": bad}, "position") for bad in (-1, "1")),
    ({"apply": "now"}, "apply"),
    ({"max_steps": 0}, "max_steps"),
    ({"manager_config": {"strategy": "verbatim"}}, "namespace"),
    ({"message": []}, "message"),
]
BAD_CONSOLIDATIONS: list[tuple[dict[str, Any], str]] = [
    ({}, "namespace"),
    *(({"namespace": bad}, "namespace") for bad in (None, [""])),
    ({"namespace": [], "strategy": "verbatim"}, "strategy"),
    ({"namespace": [], "everything": 1}, "everything"),
    *(({"namespace": [], "limit": bad}, "limit") for bad in (0, 1001)),
    ({"namespace": [], "manager_config": {"kinds": []}}, "manager_config.kinds"),
    ({"namespace": [], "messages": []}, "messages"),
]


async def test_bad_jobs_are_refused_by_field(with_model: httpx2.AsyncClient) -> None:
    for body, field in BAD_EXTRACTIONS:
        assert fields_of(await extract(with_model, **body)) == [field], body
    for body, field in BAD_CONSOLIDATIONS:
        response = await with_model.post("/v1/jobs/consolidate", json=body)
        assert fields_of(response) == [field], body
    response = await extract(with_model, manager="nobody")
    assert code_of(response, 404) == "manager_not_found"
    assert (await with_model.get("/v1/jobs")).json()["jobs"] == []


async def test_a_configuration_sent_as_the_manager_is_the_configuration(
    client: httpx2.AsyncClient,
) -> None:
    config = {"strategy": "verbatim"}
    body = {"namespace": ["users"], "messages": [["user", "Hello"]], "manager": config}
    accepted = await client.post("/v1/jobs/extract", json=body)
    assert accepted.status_code == 202, accepted.text
    both = await client.post("/v1/jobs/extract", json={**body, "manager_config": config})
    assert both.status_code == 422
    assert "send one of them" in both.json()["detail"]
    wrong = await client.post("/v1/jobs/extract", json={**body, "manager": {"strategy": "x"}})
    assert wrong.json()["errors"][0]["field"] == "manager_config.strategy"
