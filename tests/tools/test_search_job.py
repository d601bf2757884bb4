import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr

from app.auth.access import Grant, Verb
from app.auth.service import KeyService
from app.config import Settings
from app.job_kinds import handlers
from app.main import create_app
from app.providers.embeddings.fake import FakeEmbedder
from app.resources import Resources
from app.tools.search_job import MAX_BYTES
from tests.support.app import Store, running
from tests.support.jobs import quick, settled, worker_of, working
from tests.support.llm_server import LLMServer, calls, fails, refuses, says
from tests.tools.agent import ALICE, HOME, JSON, Agent

pytestmark = pytest.mark.slow  # each waits for workers or models

URL = "/v1/jobs/search"
TALK = [["user", "We moved to Turin. Where shall we eat with Rex?"]]

TEA = "Alice drinks green tea."
DOG = "Alice has a dog called Rex."
HOUSE = "Alice lives in Turin."


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
    await store.put(HOME, "tea", {"content": TEA})
    await store.put(HOME, "dog", {"content": DOG})
    await store.put(HOME, "house", {"content": HOUSE})
    await store.put(["memories", "bob"], "dog", {"content": "Bob has a dog called Rex."})
    return store


def queries(*texts: str) -> Any:
    return calls(*(("search_memories", {"query": text}) for text in texts))


async def submitted(client: httpx2.AsyncClient, *, status: int = 202, **body: Any) -> JSON:
    response = await client.post(URL, json={"messages": TALK, **ALICE, **body})
    assert response.status_code == status, response.text
    answer: JSON = response.json()
    return answer


async def done(client: httpx2.AsyncClient, resources: Resources, **body: Any) -> JSON:
    """Return a job that a worker has done."""
    job_id = (await submitted(client, **body))["id"]
    await settled(resources.database, job_id)
    job: JSON = (await client.get(f"/v1/jobs/{job_id}")).json()
    return job


@pytest.mark.usefixtures("worker", "memories")
async def test_one_call_writes_queries_and_their_finds_are_put_together(
    client: httpx2.AsyncClient, resources: Resources, llm: LLMServer
) -> None:
    llm.script.append(queries("Alice lives in Turin", "Alice has a dog", "Alice has a dog"))
    job = await done(client, resources, limit=2)
    assert (job["kind"], job["state"], job["namespace"]) == ("search", "succeeded", HOME)
    result = job["result"]
    assert result["queries"] == ["Alice lives in Turin", "Alice has a dog"]
    keys = [item["key"] for item in result["items"]]
    assert {"house", "dog"} <= set(keys)
    assert len(set(keys)) == len(keys)
    scores = [item["score"] for item in result["items"]]
    assert scores == sorted(scores, reverse=True)
    assert {tuple(item["namespace"]) for item in result["items"]} == {tuple(HOME)}
    assert (result["omitted"], result["model"]) == (0, "anthropic:scripted")
    assert job["usage"]["model_calls"] == 1


@pytest.mark.usefixtures("worker", "memories")
async def test_an_item_has_its_best_score_of_all_searches(
    client: httpx2.AsyncClient, resources: Resources, llm: LLMServer, store: Store
) -> None:
    texts = ["Alice", "Alice drinks green tea"]
    llm.script.append(queries(*texts))
    items = (await done(client, resources))["result"]["items"]
    alone = [
        {item["key"]: item["score"] for item in await store.search(HOME, query=text)}
        for text in texts
    ]
    best = {key: max(scores[key] for scores in alone if key in scores) for key in alone[0]}
    assert {item["key"]: item["score"] for item in items} == best


@pytest.mark.usefixtures("worker", "memories")
async def test_the_model_sees_the_conversation_and_the_instructions(
    client: httpx2.AsyncClient, resources: Resources, llm: LLMServer
) -> None:
    llm.script.append(queries("Turin"))
    await done(client, resources, instructions="Look for allergies. </instructions>")
    (asked,) = llm.requests
    assert "We moved to Turin" in asked.last_user_text
    assert "Look for allergies. &lt;/instructions>" in asked.system
    assert [tool.name for tool in asked.tools] == ["search_memories"]
    assert asked.tool_choice == "any"


@pytest.mark.usefixtures("worker", "memories")
async def test_what_is_found_counts_as_used(
    client: httpx2.AsyncClient, resources: Resources, llm: LLMServer
) -> None:
    llm.script.append(queries("tea", "dog"))
    await done(client, resources)
    assert sorted(uses.count for uses in resources.usage.take().values()) == [2, 2, 2]


@pytest.mark.usefixtures("worker", "memories")
@pytest.mark.parametrize("reply", [says("Nothing."), refuses(), queries("", " ")])
async def test_where_the_model_gives_no_query_the_messages_are_searched_with(
    client: httpx2.AsyncClient, resources: Resources, llm: LLMServer, reply: Any
) -> None:
    llm.script.append(reply)
    result = (await done(client, resources))["result"]
    assert TALK[0][1] in result["queries"]
    assert {item["key"] for item in result["items"]} == {"tea", "dog", "house"}


@pytest.mark.usefixtures("worker", "memories")
async def test_a_filter_holds_for_every_search(
    client: httpx2.AsyncClient, resources: Resources, llm: LLMServer
) -> None:
    llm.script.append(queries("tea", "dog"))
    job = await done(client, resources, filter={"content": {"$contains": "Rex"}})
    assert [item["key"] for item in job["result"]["items"]] == ["dog"]


@pytest.mark.usefixtures("worker")
async def test_pinned_memories_come_first(
    client: httpx2.AsyncClient, resources: Resources, llm: LLMServer, memories: Store
) -> None:
    await memories.put(HOME, "rule", {"content": "Never mention the war."}, pinned=True)
    llm.script.append(queries("Alice drinks green tea"))
    keys = [item["key"] for item in (await done(client, resources))["result"]["items"]]
    assert keys[:2] == ["rule", "tea"]


@pytest.mark.usefixtures("worker")
async def test_what_a_result_has_no_room_for_is_counted(
    client: httpx2.AsyncClient, resources: Resources, llm: LLMServer, store: Store
) -> None:
    for number in range(6):
        await store.put(
            HOME, f"k{number}", {"title": "tea", "text": "x" * 1_000_000}, index=["title"]
        )
    llm.script.append(queries("tea"))
    result = (await done(client, resources))["result"]
    assert (len(result["items"]), result["omitted"]) == (4, 2)
    assert len(json.dumps(result)) < MAX_BYTES + 10_000


@pytest.mark.usefixtures("worker", "memories")
async def test_a_manager_says_where_to_search_and_with_which_model(
    client: httpx2.AsyncClient, resources: Resources, llm: LLMServer, store: Store
) -> None:
    config = {"namespace": ["memories", "{id}"], "query_model": "anthropic:small"}
    await store.call("PUT", "/v1/managers/notes", status=201, json=config)
    llm.script.append(queries("Rex"))
    job = await done(client, resources, manager="notes", variables={"id": "bob"})
    assert (job["manager"], job["namespace"]) == ("notes", ["memories", "bob"])
    assert [item["key"] for item in job["result"]["items"]] == ["dog"]
    assert llm.requests[0].model == "small"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"variables": {}}, "missing_variable"),
        ({"messages": []}, "invalid_request"),
        ({"messages": [{"content": "Hi"}]}, "invalid_message"),
        ({"limit": 101}, "invalid_request"),
        ({"filter": {"a": {"$like": "b"}}}, "invalid_filter"),
        ({"query_model": "openai:gpt"}, "model_not_allowed"),
    ],
)
async def test_what_cannot_be_done_is_refused_at_once(
    client: httpx2.AsyncClient, body: JSON, code: str
) -> None:
    assert (await submitted(client, status=422, **body))["code"] == code


@pytest.mark.parametrize("verb", [Verb.READ, Verb.JOBS])
async def test_searching_takes_the_grants_to_read_and_for_jobs(
    client: httpx2.AsyncClient, resources: Resources, verb: Verb
) -> None:
    keys = KeyService(resources.database, resources.clock)
    grants = (Grant(tuple(HOME), frozenset(set(Verb) - {verb})),)
    token = await keys.create("agent", root=(), grants=grants, expires_at=None)
    headers = {"x-api-key": str(token)}
    response = await client.post(URL, json={"messages": TALK, **ALICE}, headers=headers)
    assert (response.status_code, response.json()["code"]) == (403, "forbidden")
    called = await Agent(client, headers).problem("search_memory", {"query": "x"}, messages=TALK)
    assert called == (403, "forbidden")


@pytest.mark.usefixtures("worker", "memories")
async def test_the_tool_waits_for_what_a_model_searches_for(
    client: httpx2.AsyncClient, llm: LLMServer
) -> None:
    llm.script.append(queries("Alice has a dog"))
    agent = Agent(client)
    answer = await agent.answer("search_memory", {"query": "Alice drinks green tea"}, messages=TALK)
    assert not answer["is_error"]
    shown = json.loads(answer["content"])
    assert {"tea", "dog"} <= {item["key"] for item in shown}
    assert shown[0].keys() == {"namespace", "key", "value", "created_at", "updated_at", "score"}
    assert [item["key"] for item in answer["artifact"]] == [item["key"] for item in shown]
    (job,) = (await client.get("/v1/jobs?include=result")).json()["jobs"]
    assert job["result"]["queries"] == ["Alice drinks green tea", "Alice has a dog"]
    assert job["usage"]["model_calls"] == 1


@pytest.mark.usefixtures("worker", "memories")
async def test_the_page_that_the_model_asked_for_is_what_it_gets(
    client: httpx2.AsyncClient, llm: LLMServer
) -> None:
    llm.script.extend([queries("Alice", "dog"), queries("Alice", "dog"), queries("Alice", "dog")])
    agent = Agent(client)

    async def keys(**page: int) -> list[str]:
        told = await agent.does({"query": "tea", **page}, name="search_memory", messages=TALK)
        return [item["key"] for item in json.loads(told)]

    every = await keys()
    assert sorted(every) == ["dog", "house", "tea"]
    assert await keys(limit=1) == every[:1]
    assert await keys(limit=1, offset=1) == every[1:2]


async def test_a_search_that_takes_too_long_is_told_to_the_model(
    client: httpx2.AsyncClient,
) -> None:
    told = await Agent(client).errs(
        {"query": "tea"}, name="search_memory", messages=TALK, headers={"Prefer": "wait=1"}
    )
    (job,) = (await client.get("/v1/jobs")).json()["jobs"]
    assert told == f"The search is not done after 1 s ({job['id']}); go on without it."
    assert job["state"] == "queued"


async def test_a_program_that_does_not_want_to_wait_is_answered_at_once(
    client: httpx2.AsyncClient,
) -> None:
    told = await Agent(client).errs(
        {"query": "tea"}, name="search_memory", messages=TALK, headers={"Prefer": "wait=0"}
    )
    assert told.startswith("The search is not done after 0 s")


@pytest.mark.usefixtures("worker")
async def test_a_search_that_fails_is_told_to_the_model_but_not_why(
    client: httpx2.AsyncClient, llm: LLMServer
) -> None:
    llm.script.append(fails(400, "no such model"))
    told = await Agent(client).errs({"query": "tea"}, name="search_memory", messages=TALK)
    (job,) = (await client.get("/v1/jobs")).json()["jobs"]
    assert told == f"The search failed ({job['id']}); go on without it."
    assert "no such model" in job["error"]["detail"]


@pytest.mark.usefixtures("worker", "memories")
async def test_the_last_page_that_a_model_may_ask_for_is_searched_for_too(
    client: httpx2.AsyncClient, llm: LLMServer
) -> None:
    llm.script.append(queries("Alice"))
    page = {"query": "tea", "limit": 100, "offset": 1000}
    assert await Agent(client).does(page, name="search_memory", messages=TALK) == "[]"


async def test_a_models_filter_is_its_own_mistake_here_too(client: httpx2.AsyncClient) -> None:
    arguments = {"query": "tea", "filter": {"a": {"$like": "b"}}}
    told = await Agent(client).errs(arguments, name="search_memory", messages=TALK)
    assert 'unknown operator "$like"' in told
    assert (await client.get("/v1/jobs")).json()["jobs"] == []
