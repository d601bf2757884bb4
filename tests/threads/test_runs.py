from datetime import timedelta
from typing import Any

import httpx2
import pytest

from app.clock import FrozenClock
from tests.support.threads import VERBATIM, Threads

HUMAN: dict[str, Any] = {
    "content": "I like tea",
    "additional_kwargs": {},
    "response_metadata": {},
    "type": "human",
    "name": None,
    "id": None,
}
AI: dict[str, Any] = {**HUMAN, "content": "Noted.", "type": "ai", "id": "run-1", "tool_calls": []}


@pytest.fixture
async def manager(client: httpx2.AsyncClient) -> str:
    """The name of a stored manager."""
    stored = await client.put("/v1/managers/keeper", json=VERBATIM)
    assert stored.status_code == 201, stored.text
    return "keeper"


def run_of(*messages: Any, **more: Any) -> dict[str, Any]:
    """Return a run as LangMem's executor sends it."""
    return {
        "input": {"messages": list(messages)},
        "assistant_id": "keeper",
        "config": {"configurable": {"thread_id": "t", "namespace": ["memories", "u1"]}},
        "multitask_strategy": "rollback",
        "if_not_exists": "create",
        "after_seconds": 30,
        "stream_mode": "values",
        "stream_subgraphs": False,
        "stream_resumable": False,
        **more,
    }


async def create(
    threads: Threads, *messages: Any, status: int = 200, **more: Any
) -> dict[str, Any]:
    run = run_of(*messages, **more)
    return await threads.call("POST", "t", "/runs", status=status, json=run)


async def test_a_run_is_answered_as_the_sdk_expects(
    client: httpx2.AsyncClient, manager: str
) -> None:
    body = run_of(HUMAN, metadata={"a": 1})
    response = await client.post("/v1/threads/a%2Fb/runs", json=body)
    run = response.json()
    job = (await client.get(response.headers["location"])).json()
    assert run == {
        "run_id": job["id"],
        "thread_id": "a/b",
        "assistant_id": manager,
        "status": "pending",
        "created_at": "2026-01-01T12:00:00+00:00",
        "updated_at": "2026-01-01T12:00:00+00:00",
        "metadata": {"a": 1},
        "kwargs": {},
        "multitask_strategy": "rollback",
    }
    assert response.headers["content-location"] == f"/v1/threads/a%2Fb/runs/{job['id']}"
    assert (job["kind"], job["manager"], job["namespace"]) == (
        "extract_thread",
        "keeper",
        ["memories", "u1"],
    )


@pytest.mark.usefixtures("manager")
async def test_a_further_run_adds_only_new_messages_and_postpones_the_job(
    threads: Threads, clock: FrozenClock
) -> None:
    conversation: list[Any] = [HUMAN, AI, ["user", "Hi"]]
    first = await create(threads, *conversation)
    for n in range(3):
        clock.advance(timedelta(seconds=20))
        conversation += [{**HUMAN, "content": f"And {n}"}, {**AI, "id": f"run-{n + 2}"}]
        sent = conversation[-4:] if n == 2 else conversation  # at last only a window
        assert (await create(threads, *sent))["run_id"] == first["run_id"]
    said = ["I like tea", "Noted.", "Hi", "And 0", "Noted.", "And 1", "Noted.", "And 2", "Noted."]
    assert await threads.texts("t") == said
    thread = await threads.get("t")
    assert (thread["manager"], thread["pending"]) == ("keeper", len(said))


@pytest.mark.usefixtures("manager")
async def test_a_run_without_a_thread_is_a_job_of_its_own(client: httpx2.AsyncClient) -> None:
    body = run_of(HUMAN, AI, if_not_exists=None)
    runs = [(await client.post("/v1/runs", json=body)) for _ in range(2)]
    assert [run.status_code for run in runs] == [200, 200]
    first, second = (run.json() for run in runs)
    assert first["run_id"] != second["run_id"]
    assert first["thread_id"] is None
    assert runs[0].headers["content-location"] == f"/v1/runs/{first['run_id']}"
    job = (await client.get(f"/v1/jobs/{first['run_id']}")).json()
    shown = (job["kind"], job["state"], job["namespace"])
    assert shown == ("extract", "queued", ["memories", "u1"])
    assert job["run_at"] > job["created_at"]


@pytest.mark.usefixtures("manager")
async def test_the_same_idempotency_key_makes_one_run(client: httpx2.AsyncClient) -> None:
    paths = ("/v1/runs", "/v1/threads/t/runs")

    async def created(path: str) -> dict[str, Any]:
        headers = {"Idempotency-Key": path}
        response = await client.post(path, json=run_of(HUMAN), headers=headers)
        found: dict[str, Any] = response.json()
        return found

    first = [await created(path) for path in paths]
    assert [await created(path) for path in paths] == first
    (name,) = {run["assistant_id"] for run in first}
    await client.delete(f"/v1/managers/{name}")
    assert [await created(path) for path in paths] == first


@pytest.mark.usefixtures("manager")
async def test_a_variable_in_the_namespace_is_filled_in_or_missing(threads: Threads) -> None:
    namespace = ["memories", "{langgraph_user_id}"]
    config: dict[str, Any] = {"configurable": {"namespace": namespace}}
    nobody: Any
    for nobody in (None, True, 1.5, {}, [], "", " "):
        config["configurable"]["langgraph_user_id"] = nobody
        problem = await create(threads, HUMAN, config=config, status=422)
        assert problem["errors"][0]["field"].endswith(".langgraph_user_id")
    for missing in (None, {}, {"configurable": {"namespace": namespace}}):
        problem = await create(threads, HUMAN, config=missing, status=422)
        assert problem["code"] == "missing_variable"
        assert problem["errors"][0]["field"].startswith("config.configurable.")
    config["configurable"] |= {"langgraph_user_id": 7, "model": "x"}
    await create(threads, HUMAN, config=config)
    assert (await threads.get("t"))["namespace"] == ["memories", "7"]


@pytest.mark.usefixtures("manager")
async def test_variables_of_the_managers_namespace_are_filled_in(threads: Threads) -> None:
    config = {"configurable": {"user_id": "u7", "thread_id": "t", "model": "x"}}
    await create(threads, HUMAN, config=config)
    assert (await threads.get("t"))["namespace"] == ["users", "u7"]
    response = await threads.client.post("/v1/runs", json=run_of(HUMAN, config=config))
    job = (await threads.client.get(response.headers["location"])).json()
    assert job["namespace"] == ["users", "u7"]


@pytest.mark.usefixtures("manager")
async def test_bad_runs_are_refused(threads: Threads) -> None:
    bad: list[dict[str, Any]] = [
        {"input": {"messages": []}},
        {"input": None},
        {"assistant_id": None},
        {"after_seconds": -1},
        {"config": {"configurable": {"namespace": ["a", "{"]}}},
        {"config": {"configurable": {"namespace": []}}},
    ]
    for member in bad:
        await threads.call("POST", "t", "/runs", status=422, json=run_of(HUMAN) | member)
    problem = await create(threads, HUMAN, assistant_id="nobody", status=404)
    assert problem["code"] == "manager_not_found"
    problem = await create(threads, HUMAN, if_not_exists=None, status=404)
    assert problem["code"] == "thread_not_found"
    await create(threads, HUMAN, if_not_exists="reject", status=404)
    await create(threads, HUMAN)
    await create(threads, HUMAN, AI, if_not_exists="reject")
