"""Hidden things are answered like absent ones: same status, same words."""

import re
from typing import Any, TypeAlias

import httpx2
import pytest

from app.auth.access import Grant, Verb
from app.auth.service import KeyService
from tests.support.keys import assert_problem, grant, key_with

pytestmark = pytest.mark.slow

MESSAGES = [["user", "I love ramen."]]
ALICE, BOB = ["users", "alice"], ["users", "bob"]
Call: TypeAlias = tuple[str, str, dict[str, Any]]


async def headers_of(keys: KeyService, *grants: Grant) -> dict[str, str]:
    return await key_with(keys, *grants, root=("acme",))


@pytest.fixture(
    params=[
        (grant(Verb, *BOB),),
        (grant(Verb, "users", "alice", "private"),),
        (grant(Verb, "teams"), grant({Verb.JOBS}, *BOB)),
        (grant({Verb.ADMIN}, "users"),),
    ],
    ids=["bob", "one below", "jobs elsewhere", "none"],
)
async def stranger(
    request: pytest.FixtureRequest, client: httpx2.AsyncClient, keys: KeyService
) -> dict[str, str]:
    """Headers of a key that may not see the thread `there` and the manager `there`."""
    owner = await headers_of(keys)
    config = {"namespace": ALICE, "strategy": "verbatim", "instructions": "Secret."}
    for method, path, body in (
        ("PUT", "/v1/managers/there", config),
        ("POST", "/v1/threads/there/messages", {"manager": "there", "messages": MESSAGES}),
    ):
        response = await client.request(method, path, json=body, headers=owner)
        assert response.is_success, response.text
    return await headers_of(keys, *request.param)


def post(path: str, **json: Any) -> Call:
    return "POST", f"/v1/{path}", {"json": json}


def calls(name: str) -> list[Call]:
    """Return requests to every route that names a thread or a manager."""
    said = {"messages": MESSAGES}
    run = {"assistant_id": name, "input": said}
    elsewhere = {**run, "assistant_id": "none"}
    in_bob = {"config": {"configurable": {"namespace": BOB}}}
    if_match = {"headers": {"if-match": '"1"'}}
    optimize = {"prompt": {"name": "p", "text": "Help."}, "trajectories": [{"thread_id": name}]}
    return [
        ("GET", f"/v1/managers/{name}", {}),
        ("GET", f"/v1/threads/{name}", {}),
        ("GET", f"/v1/threads/{name}/messages", {}),
        ("POST", f"/v1/threads/{name}/flush", {}),
        ("DELETE", f"/v1/threads/{name}", {}),
        post(f"threads/{name}/messages", **said),
        post(f"threads/{name}/runs", **elsewhere),
        post(f"threads/{name}/runs", **elsewhere, **in_bob),
        post("threads/other/messages", **said, manager=name),
        post("threads/other/runs", **run),
        post("runs", **run),
        post("jobs/extract", **said, manager=name),
        post("jobs/extract", **said, manager=name, namespace=ALICE),
        post("jobs/consolidate", namespace=ALICE, manager=name),
        post("jobs/search", **said, manager=name),
        post("jobs/summarize", thread_id=name, max_tokens=100_000),
        post("jobs/optimize-prompt", **optimize),
        ("GET", "/v1/tools", {"params": {"manager": name}}),
        post("tools/search_memory", manager=name, arguments={}),
        post("tools/manage_memory", manager=name, arguments={}),
        ("PUT", f"/v1/managers/{name}", {"json": {}, **if_match}),
        ("DELETE", f"/v1/managers/{name}", if_match),
        # Last: if it is allowed, it creates a thread of the key's own.
        post(f"threads/{name}/messages", **said, namespace=BOB),
        ("GET", f"/v1/threads/{name}", {}),
    ]


def seen(response: httpx2.Response, name: str) -> tuple[int, str]:
    """Return an answer without ids and times."""
    text = re.sub(r"job_[0-9a-f]+|\d{4}-\d\d-\d\dT[0-9:.+Z]+", "…", response.text)
    return response.status_code, text.replace(name, "NAME")


async def test_absent_and_hidden_are_answered_alike(
    client: httpx2.AsyncClient, stranger: dict[str, str]
) -> None:
    for there, none in zip(calls("there"), calls("ghost"), strict=True):
        answers = []
        for (method, path, request), name in ((there, "there"), (none, "ghost")):
            headers = {**stranger, **request.get("headers", {})}
            body = {part: given for part, given in request.items() if part != "headers"}
            response = await client.request(method, path, headers=headers, **body)
            answers.append(seen(response, name))
        assert answers[0] == answers[1], there
        assert answers[0][0] < 500


@pytest.mark.parametrize("verbs", [{Verb.JOBS}, {Verb.JOBS, Verb.READ}, {Verb.READ, Verb.WRITE}])
async def test_a_manager_is_hidden_from_keys_that_cannot_extract_there(
    client: httpx2.AsyncClient, keys: KeyService, verbs: set[Verb]
) -> None:
    owner = await headers_of(keys)
    for name, template in (("there", ALICE), ("template", ["users", "{user}"])):
        config = {"namespace": template, "strategy": "verbatim"}
        response = await client.put(f"/v1/managers/{name}", json=config, headers=owner)
        assert response.is_success
    headers = await headers_of(keys, grant(verbs, "users"), grant(Verb, "teams"))
    for name in ("there", "template"):
        run = {"assistant_id": name, "input": {"messages": MESSAGES}}
        extract = {"messages": MESSAGES, "manager": name}
        for path, body in (
            ("/v1/threads/other/messages", extract),
            ("/v1/threads/other/runs", run),
            ("/v1/runs", run),
            ("/v1/jobs/extract", extract),
        ):
            response = await client.post(path, json=body, headers=headers)
            assert_problem(response, 404, "manager_not_found")
            assert "users" not in response.text


async def test_the_same_thread_id_is_another_thread_elsewhere(
    client: httpx2.AsyncClient, keys: KeyService
) -> None:
    everyone = await headers_of(keys)
    texts = {"alice": "I love ramen.", "bob": "I hate ramen."}
    for user, text in texts.items():
        mine = await headers_of(keys, grant(Verb, "users", user))
        body = {"namespace": ["users", user], "messages": [["user", text]]}
        response = await client.post("/v1/threads/chat/messages", json=body, headers=mine)
        assert response.status_code == 202
        assert response.json()["appended"] == 1
        thread = (await client.get("/v1/threads/chat", headers=mine)).json()
        assert (thread["namespace"], thread["messages"]) == (["users", user], 1)
        page = (await client.get("/v1/threads/chat/messages", headers=mine)).json()
        assert [one["message"]["content"] for one in page["messages"]] == [text]
    response = await client.get("/v1/threads/chat", headers=everyone)
    assert_problem(response, 409, "thread_ambiguous")
    body = {"namespace": ["users", "bob"], "messages": [["user", "Really."]]}
    response = await client.post("/v1/threads/chat/messages", json=body, headers=everyone)
    assert response.json()["pending"] == 2


async def test_a_replay_needs_the_grants_of_the_request(
    client: httpx2.AsyncClient, keys: KeyService
) -> None:
    body = {"namespace": ALICE, "messages": MESSAGES, "manager_config": {"strategy": "verbatim"}}
    paths = ("/v1/jobs/extract", "/v1/threads/chat/messages")
    both = [await headers_of(keys) for _ in range(2)]
    bob = await headers_of(keys, grant(Verb, *BOB))
    for number, path in enumerate(paths):
        again = {"idempotency-key": f"key-{number}"}
        first = await client.post(path, json=body, headers=both[0] | again)
        assert first.status_code == 202
        second = await client.post(path, json=body, headers=both[1] | again)
        name = "id" if number == 0 else "job_id"
        assert second.json()[name] == first.json()[name]
        refused = await client.post(path, json=body, headers=bob | again)
        assert_problem(refused, 403, "forbidden")
