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


@pytest.mark.parametrize("field", ["model", "query_model"])
async def test_the_refusal_of_a_model_lists_the_allowed_ones(
    client: httpx2.AsyncClient, field: str
) -> None:
    response = await put(client, "alice", {field: "openai:other"})
    assert code_of(response, 422) == "model_not_allowed"
    assert 'Allowed: "anthropic:claude", "openai:gpt".' in response.json()["detail"]
    assert (await client.get(f"{URL}/alice")).status_code == 404


async def test_a_stored_manager_is_checked_against_the_allowed_models(
    client: httpx2.AsyncClient, settings: Settings, embedder: FakeEmbedder
) -> None:
    assert (await put(client, "notes", {"model": "openai:gpt"})).status_code == 201
    later = settings.model_copy(update={"llm": "anthropic:claude", "allowed_models": None})
    async with running(create_app(later, embedder=embedder)) as restarted:
        response = await extract(restarted, manager="notes")
        assert code_of(response, 422) == "model_not_allowed"
        assert 'Allowed: "anthropic:claude".' in response.json()["detail"]


async def test_a_manager_is_returned_as_it_was_sent(client: httpx2.AsyncClient) -> None:
    expected = {"name": "alice", "config": FULL, "version": 1, "created_at": NOW, "updated_at": NOW}
    created = await put(client, "alice", FULL)
    assert created.status_code == 201
    assert created.headers["etag"] == '"1"'
    assert created.json() == expected
    read = await client.get(f"{URL}/alice")
    assert (read.status_code, read.headers["etag"], read.json()) == (200, '"1"', expected)


async def test_a_put_replaces_the_whole_configuration(
    client: httpx2.AsyncClient, clock: FrozenClock
) -> None:
    await put(client, "m", FULL)
    clock.advance(timedelta(minutes=1))
    replaced = await put(client, "m", {})  # nothing has to be configured
    assert replaced.status_code == 200
    assert replaced.headers["etag"] == '"2"'
    assert replaced.json() == {
        "name": "m",
        "config": {},
        "version": 2,
        "created_at": NOW,
        "updated_at": "2026-01-01T12:01:00+00:00",
    }


async def test_names_are_case_sensitive_and_may_have_dots(client: httpx2.AsyncClient) -> None:
    for name in ("a.b", "A.B", "-", "_", "0" * 128):
        assert (await put(client, name, {})).status_code == 201
    assert (await client.get(f"{URL}/A.B")).json()["name"] == "A.B"
    assert code_of(await client.get(f"{URL}/A.b"), 404) == "manager_not_found"


@pytest.mark.parametrize("name", ["a b", "é", "a:b", "a%00", "0" * 129, "a%0A", "a@b"])
async def test_other_names_are_refused(client: httpx2.AsyncClient, name: str) -> None:
    for response in (
        await put(client, name, {}),
        await client.get(f"{URL}/{name}"),
        await client.delete(f"{URL}/{name}"),
    ):
        assert fields_of(response) == ["name"]


async def test_a_deleted_manager_is_gone(client: httpx2.AsyncClient) -> None:
    await put(client, "m", {})
    assert (await client.delete(f"{URL}/m")).status_code == 204
    assert code_of(await client.get(f"{URL}/m"), 404) == "manager_not_found"
    assert (await client.delete(f"{URL}/m")).status_code == 204
    assert (await put(client, "m", {})).status_code == 201


async def test_managers_are_listed_by_name_page_by_page(client: httpx2.AsyncClient) -> None:
    assert (await client.get(URL)).json() == {"managers": [], "next_cursor": None}
    for name in ("b", "B", "a", "c-1", "c.1"):
        await put(client, name, {})
    everything = (await client.get(URL)).json()
    assert [manager["name"] for manager in everything["managers"]] == ["B", "a", "b", "c-1", "c.1"]
    assert everything["next_cursor"] is None
    pages: list[list[str]] = []
    cursor: dict[str, str | None] = {}
    for _ in range(3):
        page = (await client.get(URL, params={"limit": 2, **cursor})).json()
        pages.append([manager["name"] for manager in page["managers"]])
        cursor = {"cursor": page["next_cursor"]}
    assert pages == [["B", "a"], ["b", "c-1"], ["c.1"]]
    assert cursor == {"cursor": None}


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "1001"}, "limit"),
        ({"limit": "many"}, "limit"),
        ({"cursor": "a b"}, "cursor"),
        ({"cursor": ""}, "cursor"),
        ({"offset": "1"}, "offset"),
    ],
)
async def test_bad_parameters_of_the_list_are_refused(
    client: httpx2.AsyncClient, query: dict[str, str], field: str
) -> None:
    assert fields_of(await client.get(URL, params=query)) == [field]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"if_match": '"2"'}, 200),
        ({"if_match": "*"}, 200),
        ({"if_match": '"7", "2"'}, 200),
        ({"if_none_match": '"1"'}, 200),
        ({"if_match": '"1"'}, 412),
        ({"if_match": 'W/"2"'}, 412),
        ({"if_none_match": "*"}, 412),
        ({"if_none_match": '"2"'}, 412),
    ],
)
async def test_a_put_goes_ahead_only_where_its_condition_holds(
    client: httpx2.AsyncClient, headers: dict[str, str], status: int
) -> None:
    for _ in range(2):
        await put(client, "m", {"kinds": [{"name": "memory"}]})
    response = await put(client, "m", {"kinds": [{"name": "triple"}]}, **headers)
    assert response.status_code == status
    if status == 412:
        assert response.json()["code"] == "precondition_failed"
        assert response.json()["version"] == 2
        assert (await client.get(f"{URL}/m")).json()["config"] == {"kinds": [{"name": "memory"}]}


async def test_conditions_on_a_manager_that_is_not_there(client: httpx2.AsyncClient) -> None:
    assert code_of(await put(client, "m", {}, if_match="*"), 412) == "precondition_failed"
    assert (await put(client, "m", {}, if_none_match="*")).status_code == 201
    response = await client.delete(f"{URL}/m", headers={"if-match": '"9"'})
    assert code_of(response, 412) == "precondition_failed"
    assert (await client.delete(f"{URL}/m", headers={"if-match": '"1"'})).status_code == 204
    assert fields_of(await put(client, "m", {}, if_match="1")) == ["If-Match"]


async def test_one_of_many_concurrent_writers_succeeds(client: httpx2.AsyncClient) -> None:
    responses = await asyncio.gather(
        *(put(client, "m", {"query_limit": n}, if_none_match="*") for n in range(8))
    )
    assert sorted(response.status_code for response in responses) == [201] + [412] * 7
    responses = await asyncio.gather(
        *(put(client, "m", {"query_limit": n}, if_match='"1"') for n in range(8))
    )
    assert sorted(response.status_code for response in responses) == [200] + [412] * 7


BAD_VALUES: dict[str, list[Any]] = {
    "name": ["m"],
    "kind": [["memory"]],
    "namespace": [[], "users", [""], ["{user"], ["{a}{b}"], ["a\x00"], ["a"] * 17],
    "kinds": [[], "memory", [{"name": "memory"}] * 2],
    "instructions": [5, "a\x00", "x" * 50_001],
    "model": ["claude", "anthropic:", "mistral:large", "openai:a b"],
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
BAD_MEMBERS: list[tuple[Any, str]] = [
    ([], "body"),
    ("manager", "body"),
    (None, "body"),
    ({"namespace": [1]}, "namespace[0]"),
    ({"kinds": ["memori"]}, "kinds[0]"),
    ({"kinds": [{"name": "memory"}, 5]}, "kinds[1]"),
    ({"kinds": [{"name": "done", "schema": NOTE}]}, "kinds[0].name"),
    ({"kinds": [{"name": "note"}]}, "kinds[0]"),
    ({"kinds": [{"name": "note", "schema": {"type": "string"}}]}, "kinds[0].schema"),
    ({"kinds": [{"name": "note", "json_schema": NOTE, "schema": NOTE}]}, "kinds[0].json_schema"),
    ({"phases": [{}]}, "phases[0].instructions"),
    ({"phases": [{"instructions": "x", "enable_insert": True}]}, "phases[0].enable_insert"),
    ({"phases": [{"instructions": "x", "include_messages": 0}]}, "phases[0].include_messages"),
]


async def test_bad_configurations_are_refused_by_field(client: httpx2.AsyncClient) -> None:
    members: list[tuple[Any, str]] = [
        ({name: bad}, name) for name, values in BAD_VALUES.items() for bad in values
    ]
    for body, field in [*members, *BAD_MEMBERS]:
        assert fields_of(await put(client, "m", body)) == [field], body
    assert code_of(await client.get(f"{URL}/m"), 404) == "manager_not_found"


async def test_all_faults_are_named_at_once(client: httpx2.AsyncClient) -> None:
    body = {
        "namespace": ["{"],
        "kinds": ["memory", {"name": "y", "schema": 1}],
        "modle": "openai:gpt",
    }
    assert fields_of(await put(client, "m", body)) == [
        "namespace",
        "kinds[0]",
        "kinds[1].schema",
        "modle",
    ]


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


@pytest.mark.parametrize(
    ("grant", "may_read", "may_write"),
    [
        (Grant((), frozenset({Verb.READ})), True, False),
        (Grant((), frozenset({Verb.JOBS})), False, False),
        (Grant((), frozenset({Verb.ADMIN})), False, True),
        (Grant((), frozenset(Verb) - {Verb.READ, Verb.ADMIN}), False, False),
        (Grant(("users",), frozenset(Verb)), False, False),
    ],
)
async def test_reading_takes_read_and_writing_admin_on_the_whole_root(
    client: httpx2.AsyncClient, keys: KeyService, grant: Grant, may_read: bool, may_write: bool
) -> None:
    everything = await headers_of(keys, *ALL_GRANTED, root=("acme",))
    await client.put(f"{URL}/m", json={}, headers=everything)
    headers = await headers_of(keys, grant, root=("acme",))
    reads = [await client.get(f"{URL}/m", headers=headers), await client.get(URL, headers=headers)]
    writes = [
        await client.put(f"{URL}/m", json={}, headers=headers),
        await client.delete(f"{URL}/m", headers=headers),
    ]
    assert [r.status_code for r in reads] == [200 if may_read else 403] * 2
    assert [w.status_code for w in writes] == ([200, 204] if may_write else [403, 403])


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


async def extract(client: httpx2.AsyncClient, **body: Any) -> httpx2.Response:
    return await client.post("/v1/jobs/extract", json={"messages": [["user", "hi"]], **body})


async def test_extractions_and_consolidations_are_accepted(with_model: httpx2.AsyncClient) -> None:
    await put(with_model, "notes", {"namespace": ["users", "{user}"]})
    response = await extract(with_model, manager="notes", variables={"user": "al"}, thread_id="t-1")
    assert response.status_code == 202, response.text
    job = response.json()
    assert response.headers["location"] == f"/v1/jobs/{job['id']}"
    shown = ("kind", "state", "namespace", "manager", "thread_id")
    assert [job[name] for name in shown] == ["extract", "queued", ["users", "al"], "notes", "t-1"]
    response = await with_model.post("/v1/jobs/consolidate", json={"namespace": ["users"]})
    assert response.status_code == 202, response.text
    job = response.json()
    assert (job["kind"], job["namespace"]) == ("consolidate", ["users"])


async def test_one_idempotency_key_makes_one_job(
    with_model: httpx2.AsyncClient,
) -> None:
    body = {"messages": [["user", "hi"]], "existing": [{"content": {"content": "Likes ramen."}}]}
    headers = {"idempotency-key": "k"}
    first, second = [
        await with_model.post("/v1/jobs/extract", json=body, headers=headers) for _ in range(2)
    ]
    assert first.json()["id"] == second.json()["id"]
    assert len((await with_model.get("/v1/jobs")).json()["jobs"]) == 1


USERS = {"namespace": ["{id}"]}
BAD_EXTRACTIONS: list[tuple[dict[str, Any], str]] = [
    *(({"messages": bad}, "messages") for bad in ([], None, "hi", [["user", "hi"]] * 2001)),
    ({"messages": ["hi"]}, "messages[0]"),
    ({"messages": [["user", "hi"], {"role": "user", "content": 5}]}, "messages[1].content"),
    ({"messages": [["user", "hi"], {"content": "x"}]}, "messages[1].role"),
    ({"messages": [["user", "hi"], ["nobody", "x"]]}, "messages[1].role"),
    ({"messages": [{"role": "user", "id": "a"}] * 2}, "messages[1].id"),
    ({"messages": [["user", "a\x00"]]}, "messages[0]"),
    *(({"manager": bad}, "manager") for bad in ("a b", 5)),
    ({"manager_config": {"kinds": ["x"]}}, "manager_config.kinds[0]"),
    (
        {"manager_config": {"kinds": [{"name": "x", "schema": {}}]}},
        "manager_config.kinds[0].schema",
    ),
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
    assert (await with_model.get("/v1/jobs")).json()["jobs"] == []


async def test_an_unknown_manager_is_named(with_model: httpx2.AsyncClient) -> None:
    response = await extract(with_model, manager="nobody")
    assert code_of(response, 404) == "manager_not_found"


async def test_without_a_model_only_what_needs_none_is_accepted(client: httpx2.AsyncClient) -> None:
    assert code_of(await extract(client), 422) == "llm_not_configured"
    verbatim = {"manager_config": {"strategy": "verbatim"}, "namespace": ["talk"]}
    assert (await extract(client, **verbatim)).status_code == 202
