from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.auth.access import ALL_GRANTED
from app.auth.service import KeyService
from app.config import Settings
from app.main import create_app
from app.providers.embedder import FakeEmbedder
from tests.support.app import Store, running
from tests.support.llm_server import LLMServer, calls

LISBON = {"kind": "memory", "content": {"content": "Ana lives in Lisbon."}}


@pytest.fixture
async def store(settings: Settings, llm: LLMServer, keys: KeyService) -> AsyncIterator[Store]:
    """A key with a root, and a server with a worker and a model."""
    token = await keys.create("acme", root=["acme"], grants=ALL_GRANTED, expires_at=None)
    chosen = Settings(
        database_url=settings.database_url,
        llm="anthropic:scripted",
        anthropic_base_url=llm.url,
        ANTHROPIC_API_KEY="secret",
    )
    async with running(create_app(chosen, embedder=FakeEmbedder()), worker=True) as client:
        yield Store(client, {"authorization": f"Bearer {token}"})


async def extract(store: Store, **body: Any) -> Any:
    request = {"namespace": ["ana"], "messages": [["user", "I moved to Lisbon."]], **body}
    headers = {"prefer": "wait=20"}
    response = await store.call(
        "POST", "/v1/jobs/extract", status=200, json=request, headers=headers
    )
    return response.json()


async def decide(store: Store, job_id: str, decision: str, status: int = 200) -> Any:
    return (await store.call("POST", f"/v1/jobs/{job_id}/{decision}", status=status)).json()


async def changes(store: Store, job_id: str, **query: Any) -> Any:
    path = f"/v1/jobs/{job_id}/changes"
    return (await store.call("GET", path, status=200, params=query)).json()


def inserts(*texts: str) -> Any:
    return calls(
        *(("insert_memory", {"content": {"content": text}, "importance": 0.5}) for text in texts)
    )


@pytest.mark.slow
async def test_changes_are_proposed_applied_and_undone_over_http(
    store: Store, llm: LLMServer
) -> None:
    llm.script.append(inserts("Ana lives in Lisbon."))
    job = await extract(store, manager_config={"apply": "review"}, thread_id="t")
    assert (job["state"], job["namespace"]) == ("awaiting_review", ["ana"])
    (change,) = (await changes(store, job["id"]))["changes"]
    key = change.pop("key")
    source = change.pop("source")
    assert change == {
        "number": 1,
        "action": "insert",
        "state": "proposed",
        "namespace": ["ana"],
        "kind": "memory",
        "value": LISBON,
        "value_before": None,
        "importance": 0.5,
        "valid_from": None,
        "said_first": None,
        "said_last": None,
        "source_class": "user",
        "reason": None,
        "state_reason": None,
        "version_before": None,
        "version_after": None,
    }
    assert (source["job_id"], source["thread_id"]) == (job["id"], "t")
    assert await store.get(["ana"], key) is None
    applied = await decide(store, job["id"], "apply")
    assert (applied["state"], applied["result"]["counts"]["inserted"]) == ("succeeded", 1)
    assert (await store.get(["ana"], key))["value"] == LISBON
    assert (await decide(store, job["id"], "discard", status=409))["code"] == "job_state"
    undone = await decide(store, job["id"], "undo")
    assert undone["result"]["undo"]["counts"] == {"undone": 1, "skipped": 0}
    assert await store.get(["ana"], key) is None
    (change,) = (await changes(store, job["id"]))["changes"]
    assert (change["state"], change["version_after"]) == ("undone", 1)


@pytest.mark.slow
async def test_changes_come_in_pages(store: Store, llm: LLMServer) -> None:
    llm.script.append(inserts(*(f"Ana has cat {number}." for number in range(5))))
    job = await extract(store)
    pages = [await changes(store, job["id"], limit=2)]
    while pages[-1]["next_cursor"] is not None:
        cursor = pages[-1]["next_cursor"]
        pages.append(await changes(store, job["id"], cursor=cursor, limit=2))
    numbers = [[change["number"] for change in page["changes"]] for page in pages]
    assert numbers == [[1, 2], [3, 4], [5]]
    for query in ({"limit": 0}, {"limit": 1001}, {"cursor": "x"}, {"cursor": 2**31}, {"page": 1}):
        response = await store.call("GET", "/v1/jobs/job_0/changes", status=422, params=query)
        assert response.json()["code"] == "invalid_request"
