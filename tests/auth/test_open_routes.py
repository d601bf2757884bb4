"""Routes outside the API, with and without a key."""

import logging
import re
from typing import Any

import httpx2
import pytest

from app.auth.access import ALL_GRANTED, Verb
from app.auth.authenticator import FAILURE_WINDOW_SECONDS, MAX_FAILURE_LINES, FailureLog
from app.auth.service import KeyService
from tests.support.keys import assert_problem, grant, key_with

pytestmark = pytest.mark.slow

ASSETS = ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png", "start.js")


def logged(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    """Return what was logged about keys, of the events that begin like one."""
    messages: list[Any] = [one.msg for one in caplog.records if one.name == "memoryd.auth"]
    return [one for one in messages if one["event"].startswith(event)]


async def test_without_keys_only_this_machine_is_answered(client: httpx2.AsyncClient) -> None:
    paths = ("/readyz", "/metrics", "/docs", "/openapi.json", *(f"/docs/{one}" for one in ASSETS))
    for path in paths:
        assert (await client.get(path)).status_code == 200, path
        response = await client.get(path, headers={"host": "memory.example.com"})
        assert_problem(response, 403, "not_local")


async def test_readiness_is_explained_only_with_a_key(
    client: httpx2.AsyncClient, keys: KeyService
) -> None:
    headers = await key_with(keys, grant({Verb.READ}, "users"), root=("acme",))
    elsewhere = {"host": "memory.example.com"}
    assert (await client.get("/readyz", headers=elsewhere)).json() == {"ok": True}
    explained = (await client.get("/readyz", headers=headers | elsewhere)).json()
    assert explained["ok"] is True
    assert explained["queue"]["pending"] == 0
    assert "offset_seconds" in explained["clock"]
    revoked = await key_with(keys)
    await keys.revoke(revoked["x-api-key"].split("_")[1])
    for invalid in (revoked["x-api-key"], "mk_0_wrong", "no key at all"):
        response = await client.get("/readyz", headers={"x-api-key": invalid})
        assert (response.status_code, response.json()) == (200, {"ok": True})


async def test_unreadiness_is_explained_only_with_a_key(
    client: httpx2.AsyncClient, keys: KeyService, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = await key_with(keys, grant({Verb.READ}))
    assert (await client.get("/readyz", headers=headers)).status_code == 200

    async def refused(*_: object) -> None:
        raise ConnectionRefusedError

    monkeypatch.setattr("app.jobs.queue.read_state", refused)
    detail = assert_problem(await client.get("/readyz"), 503, "not_ready")
    assert "ConnectionRefused" not in detail
    response = await client.get("/readyz", headers=headers)
    assert_problem(response, 503, "database_unavailable")


async def test_metrics_need_their_own_grant_on_everything(
    client: httpx2.AsyncClient, keys: KeyService
) -> None:
    metrics = {Verb.METRICS}
    answered = await key_with(keys, grant(metrics))
    for headers, status in (
        ({}, 401),
        (await key_with(keys), 403),
        (await key_with(keys, grant(metrics), root=("acme",)), 403),
        (await key_with(keys, grant(metrics, "users")), 403),
        (answered, 200),
    ):
        assert (await client.get("/metrics", headers=headers)).status_code == status
    assert (await client.get("/v1/prompts", headers=answered)).status_code == 403


async def test_the_docs_page_loads_nothing_from_elsewhere(client: httpx2.AsyncClient) -> None:
    page = await client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "script-src 'self';" in page.headers["content-security-policy"]
    assert "//" not in re.sub("<!DOCTYPE.*?>", "", page.text)
    linked = re.findall(r'(?:src|href)="docs/([^"]+)"', page.text)
    assert sorted(linked) == sorted(ASSETS)
    for name in linked:
        response = await client.get(f"/docs/{name}")
        assert response.status_code == 200, name
        assert response.headers["x-content-type-options"] == "nosniff"
    assert (await client.get("/docs/other.js")).status_code == 404
    assert (await client.get("/redoc")).status_code == 404


async def test_refused_logins_are_logged_without_secrets(
    client: httpx2.AsyncClient, keys: KeyService, caplog: pytest.LogCaptureFixture
) -> None:
    token = await keys.create("test", root=(), grants=ALL_GRANTED, expires_at=None)
    sent = (f"mk_{token.id}_wrong-secret", "mk_abc_hunter2", "hunter2", "")
    with caplog.at_level(logging.WARNING, logger="memoryd.auth"):
        for key in sent:
            await client.get("/v1/prompts", headers={"x-api-key": key})
    lines = logged(caplog, "login refused")
    assert [(one["event"], one["reason"], one["key"]) for one in lines] == [
        ("login refused", "wrong secret", f"mk_{token.id}"),
        ("login refused", "unknown key", "mk_abc"),
        ("login refused", "not a key of memoryd", None),
        ("login refused", "no key", None),
    ]
    assert "hunter2" not in str(lines)
    assert "wrong-secret" not in str(lines)


@pytest.mark.usefixtures("client")  # a server configures the log
async def test_changes_of_keys_are_logged_without_secrets(
    keys: KeyService, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="memoryd.auth"):
        token = await keys.create(
            "agent",
            root=["acme"],
            grants=(grant({Verb.READ}, "users"),),
            expires_at=None,
        )
        await keys.revoke(token.id)
        await keys.revoke("nobody")
    lines = logged(caplog, "key ")
    assert [(one["event"], one["key"]) for one in lines] == [
        ("key created", f"mk_{token.id}"),
        ("key revoked", f"mk_{token.id}"),
    ]
    assert (lines[0]["name"], lines[0]["root"], lines[0]["grants"]) == (
        "agent",
        ["acme"],
        "read:users",
    )
    assert token.secret not in str(lines)


def test_a_flood_of_refused_logins_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    now = 100.0
    failures = FailureLog(lambda: now)
    with caplog.at_level(logging.WARNING, logger="memoryd.auth"):
        for _ in range(MAX_FAILURE_LINES + 1000):
            failures.note("unknown key", "ab", "10.0.0.1")
        now += FAILURE_WINDOW_SECONDS
        failures.note("unknown key", "ab", "10.0.0.1")
    lines = logged(caplog, "")
    assert len(lines) == MAX_FAILURE_LINES + 2
    assert (lines[-2]["event"], lines[-2]["count"]) == ("more logins refused", 1000)
