"""Every route, called by keys with one verb each: only `read` shows stored texts."""

import json
from pathlib import Path
from typing import Any, TypeAlias

import httpx2
import pytest

from app.auth.access import Verb
from app.auth.service import KeyService
from app.config import Settings
from app.db.database import ALL_ROOTS, Connection, Database
from app.main import create_app
from tests.support.keys import grant, key_with
from tests.support.routes import HIDDEN, REQUESTS

pytestmark = pytest.mark.slow

SECRET = "the secret word"
ALICE = ["users", "alice"]
Call: TypeAlias = tuple[str, str, dict[str, Any]]

_ITEM = {"namespace": ALICE, "key": "food"}
_SAID = {"messages": [["user", "Hello."]]}


async def send(client: httpx2.AsyncClient, headers: dict[str, str], *call: Any) -> httpx2.Response:
    method, path, request = call
    return await client.request(method, path, headers=headers, **request)


async def plant_in_tables(connection: Connection, job_id: str) -> None:
    """Write the secret into columns that no request can fill."""
    result = json.dumps({"items": [SECRET], "review": {}, "counts": {}})
    error = json.dumps({"code": "llm_reply", "detail": SECRET})
    await connection.execute(
        "UPDATE jobs SET state = 'failed', result = $2, error = $3 WHERE id = $1",
        job_id,
        result,
        error,
    )
    await connection.execute(
        "INSERT INTO job_events SELECT id, 9, namespace, 'searching', $2, now() FROM jobs "
        "WHERE id = $1",
        job_id,
        json.dumps({"queries": [SECRET]}),
    )
    await connection.execute(
        "INSERT INTO job_changes (job_id, namespace, number, key, action, state, value, "
        "details) SELECT id, namespace, 1, 'k', 'insert', 'rejected', $2, $3 FROM jobs "
        "WHERE id = $1",
        job_id,
        json.dumps({"content": SECRET}),
        json.dumps(dict.fromkeys(("importance", "valid_from", "source", "ttl_seconds", "outcome"))),
    )
    summary: dict[str, Any] = {
        "summary": SECRET,
        "summarized_message_ids": [],
        "last_summarized_message_id": None,
    }
    await connection.execute("UPDATE threads SET summary = $1", json.dumps(summary))


@pytest.fixture
async def job(client: httpx2.AsyncClient, keys: KeyService, database: Database) -> str:
    """The id of a job of Alice's, among everything else that holds the secret."""
    owner = await key_with(keys, grant(Verb))
    extract = {
        "manager": "notes",
        "namespace": ALICE,
        "messages": [["user", SECRET]],
    }
    planted: list[Call] = [
        ("PUT", "/v1/store/items", {"json": {**_ITEM, "value": {"content": SECRET}}}),
        ("PUT", "/v1/prompts/support", {"json": {"text": SECRET}}),
        (
            "PUT",
            "/v1/managers/notes",
            {"json": {"namespace": ALICE, "instructions": SECRET, "strategy": "verbatim"}},
        ),
        ("POST", "/v1/threads/chat/messages", {"json": extract}),
        ("POST", "/v1/jobs/extract", {"json": extract, "headers": {}}),
    ]
    for call in planted:
        response = await send(client, owner, *call[:2], {"json": call[2]["json"]})
        assert response.is_success, response.text
    job_id = str(response.json()["id"])
    async with database.transaction(ALL_ROOTS) as connection:
        await plant_in_tables(connection, job_id)
    return job_id


_ABOUT_THE_SECRET: dict[str, Call] = {
    "get_prompt": ("GET", "/v1/prompts/support", {}),
    "extract_memories": ("POST", "/v1/jobs/extract", {"json": {**_SAID, "manager": "notes"}}),
    "summarize_conversation": (
        "POST",
        "/v1/jobs/summarize",
        {"json": {"thread_id": "chat", "max_tokens": 100_000}},
    ),
    "optimize_prompt": (
        "POST",
        "/v1/jobs/optimize-prompt",
        {"json": {"prompt": {"name": "support"}, "trajectories": [{"thread_id": "chat"}]}},
    ),
    "search_memories": ("POST", "/v1/jobs/search", {"json": {"namespace": ALICE, **_SAID}}),
    "append_messages": ("POST", "/v1/threads/chat/messages", {"json": _SAID}),
    "promote_prompt": (
        "POST",
        "/v1/prompts/support/promote",
        {"json": {"version": 1, "label": "beta"}},
    ),
    "rollback_prompt": ("POST", "/v1/prompts/support/rollback", {"json": {}}),
}
"""Requests about the planted secret; those of all other routes are about it already."""

_CHANGES = """
cancel_job retry_job apply_job discard_job undo_job retry_jobs patch_item restore_item
promote_prompt rollback_prompt put_item put_prompt put_manager delete_item delete_thread
delete_prompt_label delete_prompt delete_manager
"""
"""Routes to call last, in this order."""


def calls(job: str) -> dict[str, Call]:
    """Return a request to every route about the secret, none of which contains it."""
    found: dict[str, Call] = {
        name: (method, path.replace("job_0", job), request)
        for name, (method, path, _, request) in {**REQUESTS, **HIDDEN}.items()
    }
    found |= _ABOUT_THE_SECRET
    return dict(sorted(found.items(), key=lambda call: _CHANGES.find(call[0])))


SHOWN = {
    "get_item",
    "list_item_versions",
    "search_items",
    "run_batch",
    "call_tool",
    "get_manager",
    "list_managers",
    "get_prompt",
    "get_thread",
    "list_messages",
}
"""The routes that show the secret to a key with `read` alone."""


def test_the_table_of_routes_is_complete() -> None:
    page = Path("docs/reference/access.md").read_text()
    described = create_app(Settings()).openapi()["paths"]
    routes = {
        f"{method.upper()} {path}"
        for path, methods in described.items()
        for method, operation in methods.items()
        if "security" in operation
    }
    assert {route for route in routes if f"`{route}`" not in page} == set()


@pytest.mark.parametrize("verb", Verb)
async def test_only_read_shows_the_secret(
    client: httpx2.AsyncClient, keys: KeyService, job: str, verb: Verb
) -> None:
    headers = await key_with(keys, grant({verb}))
    shown = set()
    for operation, call in calls(job).items():
        response = await send(client, headers, *call)
        assert response.status_code < 500, operation
        if SECRET in response.text:
            shown.add(operation)
    assert shown == (SHOWN if verb is Verb.READ else set())


async def test_all_verbs_but_read_show_nothing(
    client: httpx2.AsyncClient, keys: KeyService, job: str
) -> None:
    headers = await key_with(keys, grant(set(Verb) - {Verb.READ}))
    for operation, call in calls(job).items():
        response = await send(client, headers, *call)
        assert SECRET not in response.text, operation
    response = await client.get(f"/v1/jobs/{job}", headers=headers)
    assert response.json()["redacted"] is True


async def test_jobs_and_read_together_show_the_contents_of_a_job(
    client: httpx2.AsyncClient, keys: KeyService, job: str
) -> None:
    headers = await key_with(keys, grant({Verb.JOBS, Verb.READ}, "users"))
    for operation in ("get_job", "follow_job", "list_job_changes"):
        response = await send(client, headers, *calls(job)[operation])
        assert SECRET in response.text, operation
    elsewhere = await key_with(keys, grant({Verb.JOBS}), grant({Verb.READ}, "users", "bob"))
    for operation, call in calls(job).items():
        if "prompt" not in operation:  # `read` anywhere suffices for prompts
            assert SECRET not in (await send(client, elsewhere, *call)).text, operation


def _tool(name: str, **arguments: str | int) -> Call:
    return ("POST", f"/v1/tools/{name}", {"json": {"namespace": ALICE, "arguments": arguments}})


def _file(command: str, **arguments: str | int) -> Call:
    return _tool("memory", command=command, **arguments)


def _of_a_kind(name: str) -> Call:
    method, path, request = _tool("manage_memory", content="{}")
    return method, path, {"json": {**request["json"], "kind": name}}


def without_reading(key: str) -> list[Call]:
    """Return changes of an item whose answers could reveal its value."""
    path = f"/memories/{key}"
    return [
        _file("view", path=path),
        _file("create", path=path, file_text="x"),
        _file("create", path=f"{path}/below", file_text="x"),
        _file("str_replace", path=path, old_str=SECRET, new_str=SECRET),
        _file("str_replace", path=path, old_str="no such words", new_str="x"),
        _file("insert", path=path, insert_line=1_000, insert_text="x"),
        _file("rename", old_path=path, new_path="/memories/elsewhere"),
        _file("rename", old_path="/memories/ghost", new_path=path),
        _file("delete", path=f"{path}/below"),
        _of_a_kind("profile"),
        _tool("manage_memory", action="update", id=key, content="x"),
        _tool("manage_memory", action="delete", id=key),
        ("DELETE", "/v1/store/items", {"json": {"namespace": ALICE, "key": key}}),
        (
            "POST",
            "/v1/store/items/restore",
            {"json": {"namespace": ALICE, "key": key, "version": 2}},
        ),
    ]


async def test_without_read_no_answer_depends_on_stored_values(
    client: httpx2.AsyncClient, keys: KeyService, job: str
) -> None:
    headers = await key_with(keys, grant(set(Verb) - {Verb.READ}))
    for there, ghost in zip(without_reading("food"), without_reading("fool"), strict=True):
        answers = [await send(client, headers, *call) for call in (there, ghost)]
        texts = [answer.text.replace("fool", "food") for answer in answers]
        assert (answers[0].status_code, texts[0]) == (answers[1].status_code, texts[1]), there
        assert answers[0].status_code < 500


async def test_a_patch_without_read_does_not_reveal_sizes(
    client: httpx2.AsyncClient, keys: KeyService, job: str
) -> None:
    headers = await key_with(keys, grant({Verb.WRITE}))
    patch = {**_ITEM, "value": {"more": "x" * (2**20 - 20)}}
    response = await send(client, headers, "PATCH", "/v1/store/items", {"json": patch})
    assert (response.status_code, response.json()["code"]) == (422, "invalid_value")
    assert not any(character.isdigit() for character in response.json()["detail"])


async def test_admin_alone_writes_prompts_without_seeing_them(
    client: httpx2.AsyncClient, keys: KeyService, job: str
) -> None:
    headers = await key_with(keys, grant({Verb.ADMIN}))
    for name, text in (("support", SECRET), ("support", "Other."), ("new", "Help.")):
        call = ("PUT", f"/v1/prompts/{name}", {"json": {"text": text}})
        response = await send(client, headers, *call)
        assert (response.status_code, response.content) == (204, b"")
