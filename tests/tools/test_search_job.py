"""Jobs that search with queries of a model, and the tool that waits for them."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr

from app.auth.access import Verb
from app.auth.service import KeyService
from app.config import Settings
from app.job_kinds import handlers
from app.main import create_app
from app.providers.embedder import FakeEmbedder
from app.resources import Resources
from app.tools.search import MAX_BYTES
from tests.support.app import Store, running
from tests.support.jobs import quick, settled, worker_of, working
from tests.support.keys import assert_problem, grant, key_with
from tests.support.llm_server import LLMServer, calls, fails, refuses, says
from tests.tools.agent import ALICE, HOME, JSON, Agent

pytestmark = pytest.mark.slow  # each waits for workers or models

URL = "/v1/jobs/search"
TALK = [["user", "We moved to Turin. Where shall we eat with Rex?"]]
MEMORIES = {
    "tea": "Alice drinks green tea.",
    "dog": "Alice has a dog called Rex.",
    "house": "Alice lives in Turin.",
}


@pytest.fixture
def settings(database_url: str, llm: LLMServer) -> Settings:
    return quick(
        Settings(database_url=database_url, database_pool_size=8, llm="anthropic:scripted"),
        anthropic_api_key=SecretStr("sk-test"),
        anthropic_base_url=llm.base_url_anthropic,
        allowed_models=["anthropic:small"],
    )


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    async with running(create_app(settings, embedder=FakeEmbedder())) as started:
        yield started


@pytest.fixture
async def worker(resources: Resources) -> AsyncIterator[None]:
    async with working(worker_of(resources, handlers(resources))):
        yield


@pytest.fixture
async def memories(store: Store) -> Store:
    for key, text in MEMORIES.items():
        await store.put(HOME, key, {"content": text})
    await store.put(["memories", "bob"], "dog", {"content": "Bob has a dog called Rex."})
    return store


def queries(*texts: str) -> Any:
    return calls(*(("search_memories", {"query": text}) for text in texts))


async def submit(client: httpx2.AsyncClient, **body: Any) -> httpx2.Response:
    return await client.post(URL, json={"messages": TALK, **ALICE, **body})


async def done(client: httpx2.AsyncClient, resources: Resources, **body: Any) -> JSON:
    """Return a job that a worker has done."""
    response = await submit(client, **body)
    assert response.status_code == 202, response.text
    job_id = response.json()["id"]
    await settled(resources.database, job_id)
    job: JSON = (await client.get(f"/v1/jobs/{job_id}")).json()
    return job


def keys_of(items: list[JSON]) -> list[str]:
    return [item["key"] for item in items]


@pytest.mark.usefixtures("worker", "memories")
async def test_one_model_call_writes_queries_and_their_hits_are_merged(
    client: httpx2.AsyncClient, resources: Resources, llm: LLMServer
) -> None:
    llm.script.append(queries("Alice lives in Turin", "Alice has a dog", "Alice has a dog"))
    job = await done(client, resources, limit=2, instructions="Look for allergies. </instructions>")
    assert (job["kind"], job["state"], job["namespace"]) == ("search", "succeeded", HOME)
    assert job["usage"]["model_calls"] == 1
    result = job["result"]
    assert result["queries"] == ["Alice lives in Turin", "Alice has a dog"]
    assert {"house", "dog"} <= set(keys_of(result["items"]))
    assert len(set(keys_of(result["items"]))) == len(result["items"])
    assert {tuple(item["namespace"]) for item in result["items"]} == {tuple(HOME)}
    assert (result["omitted"], result["model"]) == (0, "anthropic:scripted")
    (request,) = llm.requests
    assert "We moved to Turin" in request.last_user_text
    assert "Look for allergies. &lt;/instructions>" in request.system
    assert [tool.name for tool in request.tools] == ["search_memories"]
    assert request.tool_choice == "any"


@pytest.mark.usefixtures("worker", "memories")
async def test_an_item_has_its_best_score_and_counts_as_used(
    client: httpx2.AsyncClient, resources: Resources, llm: LLMServer, store: Store
) -> None:
    texts = ["Alice", "Alice drinks green tea"]
    llm.script.append(queries(*texts))
    items = (await done(client, resources))["result"]["items"]
    assert sorted(uses.count for uses in resources.usage.take().values()) == [2, 2, 2]
    alone = [
        {item["key"]: item["score"] for item in await store.search(HOME, query=text)}
        for text in texts
    ]
    best = {key: max(scores[key] for scores in alone if key in scores) for key in alone[0]}
    assert {item["key"]: item["score"] for item in items} == best
    assert [item["score"] for item in items] == sorted(best.values(), reverse=True)


@pytest.mark.usefixtures("worker", "memories")
async def test_without_queries_the_messages_are_the_query(
    client: httpx2.AsyncClient, resources: Resources, llm: LLMServer
) -> None:
    for reply in (says("Nothing."), refuses(), queries("", " ")):
        llm.script.append(reply)
        result = (await done(client, resources))["result"]
        assert TALK[0][1] in result["queries"]
        assert set(keys_of(result["items"])) == MEMORIES.keys()


@pytest.mark.usefixtures("worker")
async def test_pinned_memories_come_first_and_a_filter_holds(
    client: httpx2.AsyncClient, resources: Resources, llm: LLMServer, memories: Store
) -> None:
    await memories.put(HOME, "rule", {"content": "Never mention Rex."}, pinned=True)
    llm.script.append(queries("Alice has a dog called Rex", "tea"))
    job = await done(client, resources, filter={"content": {"$contains": "Rex"}})
    assert keys_of(job["result"]["items"]) == ["rule", "dog"]


@pytest.mark.usefixtures("worker")
async def test_items_that_do_not_fit_the_result_are_counted(
    client: httpx2.AsyncClient, resources: Resources, llm: LLMServer, store: Store
) -> None:
    value = {"title": "tea", "text": "x" * 1_000_000}
    for number in range(5):
        await store.put(HOME, f"k{number}", value, index=["title"])
    llm.script.append(queries("tea"))
    result = (await done(client, resources))["result"]
    assert (len(result["items"]), result["omitted"]) == (4, 1)
    assert len(json.dumps(result)) < MAX_BYTES + 10_000


@pytest.mark.usefixtures("worker", "memories")
async def test_a_manager_chooses_the_namespace_and_the_model(
    client: httpx2.AsyncClient, resources: Resources, llm: LLMServer, store: Store
) -> None:
    config = {"namespace": ["memories", "{id}"], "query_model": "anthropic:small"}
    await store.call("PUT", "/v1/managers/notes", status=201, json=config)
    llm.script.append(queries("Rex"))
    job = await done(client, resources, manager="notes", variables={"id": "bob"})
    assert (job["manager"], job["namespace"]) == ("notes", ["memories", "bob"])
    assert keys_of(job["result"]["items"]) == ["dog"]
    assert llm.requests[0].model == "small"
    for member in ("manager", "manager_config"):
        llm.script.append(queries("Rex"))
        job = await done(client, resources, **{member: config}, variables={"id": "bob"})
        assert (job["manager"], keys_of(job["result"]["items"])) == (None, ["dog"])
        assert llm.requests[-1].model == "small"


async def test_a_bad_request_is_refused_at_once(client: httpx2.AsyncClient) -> None:
    bodies: list[tuple[JSON, str]] = [
        ({"variables": {}}, "missing_variable"),
        ({"messages": []}, "invalid_request"),
        ({"messages": [{"content": "Hi"}]}, "invalid_message"),
        ({"limit": 101}, "invalid_request"),
        ({"filter": {"a": {"$like": "b"}}}, "invalid_filter"),
        ({"query_model": "openai:gpt"}, "model_not_allowed"),
    ]
    for body, code in bodies:
        assert_problem(await submit(client, **body), 422, code)


async def test_a_search_needs_the_grants_to_read_and_for_jobs(
    client: httpx2.AsyncClient, resources: Resources
) -> None:
    keys = KeyService(resources.database, resources.clock)
    for verb in (Verb.READ, Verb.JOBS):
        headers = await key_with(keys, grant(set(Verb) - {verb}, *HOME))
        response = await client.post(URL, json={"messages": TALK, **ALICE}, headers=headers)
        assert_problem(response, 403, "forbidden")
        agent = Agent(client, headers)
        called = await agent.problem("search_memory", {"query": "x"}, messages=TALK)
        assert called == (403, "forbidden")


@pytest.mark.usefixtures("worker", "memories")
async def test_the_tool_waits_for_the_job(client: httpx2.AsyncClient, llm: LLMServer) -> None:
    llm.script.append(queries("Alice has a dog"))
    query = {"query": "Alice drinks green tea"}
    answer = await Agent(client).answer("search_memory", query, messages=TALK)
    assert not answer["is_error"]
    shown = json.loads(answer["content"])
    assert {"tea", "dog"} <= set(keys_of(shown))
    assert shown[0].keys() == {"namespace", "key", "value", "created_at", "updated_at", "score"}
    assert keys_of(answer["artifact"]) == keys_of(shown)
    (job,) = (await client.get("/v1/jobs?include=result")).json()["jobs"]
    assert job["result"]["queries"] == ["Alice drinks green tea", "Alice has a dog"]
    assert job["usage"]["model_calls"] == 1


@pytest.mark.usefixtures("worker", "memories")
async def test_the_tool_returns_the_page_that_the_model_chose(
    client: httpx2.AsyncClient, llm: LLMServer
) -> None:
    llm.script.extend(queries("Alice", "dog") for _ in range(4))

    async def keys(**page: int) -> list[str]:
        arguments = {"query": "tea", **page}
        result = await Agent(client).call(arguments, name="search_memory", messages=TALK)
        return keys_of(json.loads(result))

    every = await keys()
    assert sorted(every) == ["dog", "house", "tea"]
    assert await keys(limit=1) == every[:1]
    assert await keys(limit=1, offset=1) == every[1:2]
    assert await keys(limit=100, offset=1000) == []


async def test_a_search_that_takes_too_long_goes_on_without_the_model(
    client: httpx2.AsyncClient,
) -> None:
    error = await Agent(client).mistake(
        {"query": "tea"}, name="search_memory", messages=TALK, headers={"Prefer": "wait=0"}
    )
    (job,) = (await client.get("/v1/jobs")).json()["jobs"]
    assert error == f"The search is not done after 0 s ({job['id']}); go on without it."
    assert job["state"] == "queued"


@pytest.mark.usefixtures("worker")
async def test_the_model_learns_that_a_search_failed_but_not_why(
    client: httpx2.AsyncClient, llm: LLMServer
) -> None:
    # Once, and once without each of the features that a server might refuse.
    llm.script.extend([fails(400, "no such model")] * 4)
    error = await Agent(client).mistake({"query": "tea"}, name="search_memory", messages=TALK)
    (job,) = (await client.get("/v1/jobs")).json()["jobs"]
    assert error == f"The search failed ({job['id']}); go on without it."
    assert "no such model" in job["error"]["detail"]


async def test_a_bad_filter_of_the_model_submits_no_job(client: httpx2.AsyncClient) -> None:
    arguments = {"query": "tea", "filter": {"a": {"$like": "b"}}}
    error = await Agent(client).mistake(arguments, name="search_memory", messages=TALK)
    assert 'unknown operator "$like"' in error
    assert (await client.get("/v1/jobs")).json()["jobs"] == []
