"""What a key may not see is answered as if it did not exist: same status, same words."""

import re
from typing import Any, TypeAlias

import httpx2
import pytest

from app.auth.access import ALL_GRANTED, Grant, Verb
from app.auth.service import KeyService

pytestmark = pytest.mark.slow

MESSAGES = [["user", "I love ramen."]]
ALICE, BOB = ["users", "alice"], ["users", "bob"]
Call: TypeAlias = tuple[str, str, dict[str, Any]]


async def headers_of(keys: KeyService, *grants: Grant) -> dict[str, str]:
    token = await keys.create("test", root=("acme",), grants=grants, expires_at=None)
    return {"x-api-key": str(token)}


@pytest.fixture(
    params=[
        (Grant(tuple(BOB), frozenset(Verb)),),
        (Grant(("users", "alice", "private"), frozenset(Verb)),),
        (Grant(("teams",), frozenset(Verb)), Grant(tuple(BOB), frozenset({Verb.JOBS}))),
        (Grant(("users",), frozenset({Verb.ADMIN})),),
    ],
    ids=["bob", "one below", "jobs elsewhere", "none"],
)
async def stranger(
    request: pytest.FixtureRequest, client: httpx2.AsyncClient, keys: KeyService
) -> dict[str, str]:
    """Headers of a key that may not see the thread `there` and the manager `there`."""
    owner = await headers_of(keys, *ALL_GRANTED)
    config = {"namespace": ALICE, "strategy": "verbatim", "instructions": "Secret."}
    for method, path, body in (
        ("PUT", "/v1/managers/there", config),
        ("POST", "/v1/threads/there/messages", {"manager": "there", "messages": MESSAGES}),
    ):
        response = await client.request(method, path, json=body, headers=owner)
        assert response.is_success, response.text
    return await headers_of(keys, *request.param)


def calls(name: str) -> list[Call]:
    """Return requests to every route that names a thread or a manager."""
    run = {"assistant_id": name, "input": {"messages": MESSAGES}}
    in_bob = {"config": {"configurable": {"namespace": BOB}}}
    return [
        ("GET", f"/v1/managers/{name}", {}),
        ("GET", f"/v1/threads/{name}", {}),
        ("GET", f"/v1/threads/{name}/messages", {}),
        ("POST", f"/v1/threads/{name}/flush", {}),
        ("DELETE", f"/v1/threads/{name}", {}),
        ("POST", f"/v1/threads/{name}/messages", {"json": {"messages": MESSAGES}}),
        ("POST", f"/v1/threads/{name}/runs", {"json": {**run, "assistant_id": "none"}}),
        ("POST", f"/v1/threads/{name}/runs", {"json": {**run, "assistant_id": "none", **in_bob}}),
        ("POST", "/v1/threads/other/messages", {"json": {"messages": MESSAGES, "manager": name}}),
        ("POST", "/v1/threads/other/runs", {"json": run}),
        ("POST", "/v1/runs", {"json": run}),
        ("POST", "/v1/jobs/extract", {"json": {"messages": MESSAGES, "manager": name}}),
        (
            "POST",
            "/v1/jobs/extract",
            {"json": {"messages": MESSAGES, "manager": name, "namespace": ALICE}},
        ),
        ("POST", "/v1/jobs/consolidate", {"json": {"namespace": ALICE, "manager": name}}),
        ("POST", "/v1/jobs/search", {"json": {"messages": MESSAGES, "manager": name}}),
        ("POST", "/v1/jobs/summarize", {"json": {"thread_id": name, "max_tokens": 100_000}}),
        (
            "POST",
            "/v1/jobs/optimize-prompt",
            {
                "json": {
                    "prompt": {"name": "p", "text": "Help."},
                    "trajectories": [{"thread_id": name}],
                }
            },
        ),
        ("GET", "/v1/tools", {"params": {"manager": name}}),
        ("POST", "/v1/tools/search_memory", {"json": {"manager": name, "arguments": {}}}),
        ("POST", "/v1/tools/manage_memory", {"json": {"manager": name, "arguments": {}}}),
        ("PUT", f"/v1/managers/{name}", {"json": {}, "headers": {"if-match": '"1"'}}),
        ("DELETE", f"/v1/managers/{name}", {"headers": {"if-match": '"1"'}}),
        # Last: where it is allowed, it makes a thread of the key's own.
        (
            "POST",
            f"/v1/threads/{name}/messages",
            {"json": {"messages": MESSAGES, "namespace": BOB}},
        ),
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
async def test_who_may_form_no_memories_there_learns_nothing_of_a_manager(
    client: httpx2.AsyncClient, keys: KeyService, verbs: set[Verb]
) -> None:
    owner = await headers_of(keys, *ALL_GRANTED)
    for name, template in (("there", ALICE), ("template", ["users", "{user}"])):
        config = {"namespace": template, "strategy": "verbatim"}
        response = await client.put(f"/v1/managers/{name}", json=config, headers=owner)
        assert response.is_success
    headers = await headers_of(
        keys, Grant(("users",), frozenset(verbs)), Grant(("teams",), frozenset(Verb))
    )
    for name in ("there", "template"):
        run = {"assistant_id": name, "input": {"messages": MESSAGES}}
        formed = {"messages": MESSAGES, "manager": name}
        for path, body in (
            ("/v1/threads/other/messages", formed),
            ("/v1/threads/other/runs", run),
            ("/v1/runs", run),
            ("/v1/jobs/extract", formed),
        ):
            response = await client.post(path, json=body, headers=headers)
            assert (response.status_code, response.json()["code"]) == (404, "manager_not_found")
            assert "users" not in response.text


async def test_a_thread_of_the_same_id_is_another_one_elsewhere(
    client: httpx2.AsyncClient, keys: KeyService
) -> None:
    everyone = await headers_of(keys, *ALL_GRANTED)
    texts = {"alice": "I love ramen.", "bob": "I hate ramen."}
    for user, text in texts.items():
        mine = await headers_of(keys, Grant(("users", user), frozenset(Verb)))
        body = {"namespace": ["users", user], "messages": [["user", text]]}
        response = await client.post("/v1/threads/chat/messages", json=body, headers=mine)
        assert response.status_code == 202
        assert response.json()["appended"] == 1
        thread = (await client.get("/v1/threads/chat", headers=mine)).json()
        assert (thread["namespace"], thread["messages"]) == (["users", user], 1)
        page = (await client.get("/v1/threads/chat/messages", headers=mine)).json()
        assert [one["message"]["content"] for one in page["messages"]] == [text]
    response = await client.get("/v1/threads/chat", headers=everyone)
    assert (response.status_code, response.json()["code"]) == (409, "thread_ambiguous")
    body = {"namespace": ["users", "bob"], "messages": [["user", "Really."]]}
    response = await client.post("/v1/threads/chat/messages", json=body, headers=everyone)
    assert response.json()["pending"] == 2


async def test_a_replay_is_for_those_who_may_send_the_request(
    client: httpx2.AsyncClient, keys: KeyService
) -> None:
    body = {"namespace": ALICE, "messages": MESSAGES, "manager_config": {"strategy": "verbatim"}}
    paths = ("/v1/jobs/extract", "/v1/threads/chat/messages")
    both = [await headers_of(keys, *ALL_GRANTED) for _ in range(2)]
    bob = await headers_of(keys, Grant(tuple(BOB), frozenset(Verb)))
    for number, path in enumerate(paths):
        again = {"idempotency-key": f"key-{number}"}
        first = await client.post(path, json=body, headers=both[0] | again)
        assert first.status_code == 202
        second = await client.post(path, json=body, headers=both[1] | again)
        name = "id" if number == 0 else "job_id"
        assert second.json()[name] == first.json()[name]
        refused = await client.post(path, json=body, headers=bob | again)
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
