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
from app.providers.embedder import FakeEmbedder
from app.resources import Resources
from tests.support.app import running_with_resources
from tests.support.jobs import quick, settled, worker_of, working
from tests.support.llm_server import LLMServer, calls, refuses
from tests.support.llm_server import says as answers
from tests.support.threads import Threads, says

pytestmark = pytest.mark.slow  # each waits for workers or models

JSON = dict[str, Any]

URL = "/v1/jobs/summarize"

TALK = [says(f"Message {n}", f"m{n}", "user" if n % 2 else "assistant") for n in range(1, 10)]
SMALL: JSON = {"max_tokens": 4, "max_summary_tokens": 1, "token_counter": "messages"}
RECORD = {"title": "Nine messages", "summary": "They counted to nine."}


@pytest.fixture
def settings(database_url: str, llm: LLMServer) -> Settings:
    return quick(
        Settings(database_url=database_url, database_pool_size=8, llm="anthropic:scripted"),
        anthropic_api_key=SecretStr("sk-test"),
        anthropic_base_url=llm.base_url_anthropic,
    )


class Summaries:
    """The route, and a worker that does the jobs; every call asserts what it expects."""

    def __init__(self, client: httpx2.AsyncClient, resources: Resources) -> None:
        self.client = client
        self.resources = resources

    async def submit(self, *, status: int = 202, **body: Any) -> JSON:
        response = await self.client.post(URL, json=body)
        assert response.status_code == status, response.text
        answer: JSON = response.json()
        return answer

    async def job(self, **body: Any) -> JSON:
        """Return a job that was done."""
        return await self.done((await self.submit(**body))["id"])

    async def done(self, job_id: str) -> JSON:
        """Return a job once it has ended."""
        async with working(worker_of(self.resources, handlers(self.resources))):
            await settled(self.resources.database, job_id)
        job: JSON = (await self.client.get(f"/v1/jobs/{job_id}")).json()
        return job

    async def result(self, **body: Any) -> JSON:
        job = await self.job(**body)
        assert job["state"] == "succeeded", job["error"]
        result: JSON = job["result"]
        return result


@pytest.fixture
async def summaries(settings: Settings) -> AsyncIterator[Summaries]:
    app = create_app(settings, embedder=FakeEmbedder())
    async with running_with_resources(app) as (client, resources):
        yield Summaries(client, resources)


@pytest.fixture
def client(summaries: Summaries) -> httpx2.AsyncClient:
    return summaries.client


async def test_a_conversation_is_shortened(summaries: Summaries, llm: LLMServer) -> None:
    llm.script.append(answers("They counted."))
    job = await summaries.job(messages=TALK, **SMALL)
    assert job["result"] == {
        "kind": "summarize",
        "messages": [
            {"role": "system", "content": "Summary of the conversation so far: They counted."},
            *TALK[6:],
        ],
        "running_summary": {
            "summary": "They counted.",
            "summarized_message_ids": ["m1", "m2", "m3", "m4", "m5", "m6"],
            "last_summarized_message_id": "m6",
        },
        "summarized": 6,
        "tokens": 4,
    }
    assert (job["kind"], job["namespace"], job["thread_id"]) == ("summarize", [], None)
    assert job["usage"]["model_calls"] == 1


async def test_going_on_from_a_result_extends_its_summary(
    summaries: Summaries, llm: LLMServer
) -> None:
    llm.script += [answers("They counted."), answers("They counted, then stopped.")]
    first = await summaries.result(messages=TALK, **SMALL)
    more = [says("Stop", "m10", "assistant"), says("Bye", "m11")]
    second = await summaries.result(
        messages=[*first["messages"], *more], running_summary=first["running_summary"], **SMALL
    )
    assert "They counted." in llm.requests[1].last_user_text
    assert second["running_summary"]["summary"] == "They counted, then stopped."
    assert second["running_summary"]["last_summarized_message_id"] == "m10"
    assert [m["content"] for m in second["messages"][1:]] == ["Bye"]


async def test_short_messages_come_back_as_they_were_sent(
    summaries: Summaries, llm: LLMServer
) -> None:
    odd = [
        {"type": "human", "content": [{"type": "text", "text": "Hi"}], "id": "a", "mood": "glad"},
        {"role": "assistant", "content": None, "tool_calls": [], "id": "b"},
        ["user", "Hello"],
    ]
    job = await summaries.job(messages=odd, max_tokens=1_000)
    result = job["result"]
    assert result["messages"] == [*odd[:2], {"role": "user", "content": "Hello", "id": "3"}]
    assert (result["running_summary"], result["summarized"]) == (None, 0)
    assert (job["usage"]["model_calls"], llm.requests) == (0, [])


async def test_a_model_that_refuses_fails_the_job_at_once(
    summaries: Summaries, llm: LLMServer
) -> None:
    llm.script.append(refuses())
    job = await summaries.job(messages=TALK, **SMALL)
    assert (job["state"], job["attempt"], job["error"]["code"]) == ("failed", 1, "refused")


async def test_the_summary_of_a_thread_is_kept_with_it(
    summaries: Summaries, threads: Threads, llm: LLMServer
) -> None:
    llm.script += [answers("They counted."), answers("They counted, then stopped.")]
    await threads.append("t1", *TALK)
    first = await summaries.result(thread_id="t1", **SMALL)
    assert (await threads.get("t1"))["summary"] == first["running_summary"]
    again = await summaries.result(thread_id="t1", **SMALL)
    assert again == {**first, "summarized": 0}
    assert len(llm.requests) == 1
    await threads.append("t1", says("Stop", "m10", "assistant"), "Bye")
    second = await summaries.result(thread_id="t1", **SMALL)
    assert second["summarized"] == 4
    assert [m["content"] for m in second["messages"][1:]] == ["Bye"]
    assert "They counted." in llm.requests[1].last_user_text
    assert "Message 6" not in llm.requests[1].last_user_text
    kept = (await threads.get("t1"))["summary"]
    assert kept == second["running_summary"]
    assert len(kept["summarized_message_ids"]) == 10
    llm.script.append(calls(("record", RECORD)))
    recorded = await summaries.result(thread_id="t1", mode="extract", instructions="Be brief.")
    assert recorded == {"kind": "summarize", "content": RECORD}
    assert "Message 1\n" in llm.requests[2].last_user_text  # the whole thread
    assert "Be brief." in llm.requests[2].system


async def test_a_summary_that_was_changed_meanwhile_is_not_overwritten(
    summaries: Summaries, threads: Threads, llm: LLMServer
) -> None:
    await threads.append("t1", *TALK)
    state = {
        "summary": "By another job.",
        "summarized_message_ids": ["m1", "m2"],
        "last_summarized_message_id": "m2",
    }
    llm.script += [answers("Too late."), answers("By another job, and me.")]
    complete = summaries.resources.llms.get().complete
    database = summaries.resources.database

    async def overtaken(request: Any) -> Any:
        if not llm.requests:
            async with database.transaction("") as connection:
                await connection.execute("UPDATE threads SET summary = $1", json.dumps(state))
        return await complete(request)

    summaries.resources.llms.get().complete = overtaken  # type: ignore[method-assign]
    job = await summaries.job(thread_id="t1", **SMALL)
    assert (job["state"], job["attempt"]) == ("succeeded", 2)
    assert "By another job." in llm.requests[1].last_user_text
    kept = (await threads.get("t1"))["summary"]
    assert kept["summary"] == "By another job, and me."
    assert kept["summarized_message_ids"] == ["m1", "m2", "m3", "m4", "m5", "m6"]


async def test_a_thread_that_went_meanwhile_fails_the_job(
    summaries: Summaries, threads: Threads
) -> None:
    await threads.append("t1", *TALK)
    job_id = (await summaries.submit(thread_id="t1", **SMALL))["id"]
    await threads.delete("t1")
    job = await summaries.done(job_id)
    assert (job["state"], job["error"]["code"]) == ("failed", "thread_not_found")


async def test_a_thread_that_was_begun_anew_meanwhile_has_no_summary_of_the_old_one(
    summaries: Summaries, threads: Threads, llm: LLMServer
) -> None:
    await threads.append("t1", *TALK)
    llm.script.append(answers("They counted."))
    complete = summaries.resources.llms.get().complete

    async def overtaken(request: Any) -> Any:
        await threads.delete("t1")
        await threads.append("t1", "Hello")
        return await complete(request)

    summaries.resources.llms.get().complete = overtaken  # type: ignore[method-assign]
    job = await summaries.job(thread_id="t1", **SMALL)
    assert (job["state"], job["attempt"], len(llm.requests)) == ("succeeded", 2, 1)
    assert (job["result"]["summarized"], job["result"]["running_summary"]) == (0, None)
    assert (await threads.get("t1"))["summary"] is None


async def test_keys_sum_up_only_what_they_may(summaries: Summaries) -> None:
    resources, client = summaries.resources, summaries.client
    keys = KeyService(resources.database, resources.clock)

    async def headers_of(root: list[str], prefix: tuple[str, ...]) -> dict[str, str]:
        grants = (Grant(prefix, frozenset({Verb.JOBS, Verb.READ, Verb.WRITE})),)
        token = await keys.create("test", root=root, grants=grants, expires_at=None)
        return {"x-api-key": str(token)}

    async def statuses(root: list[str], *prefix: str) -> list[int]:
        headers = await headers_of(root, prefix)
        sent: list[JSON] = [{"thread_id": "t1", **SMALL}, {"messages": [], **SMALL}]
        answers = [await client.post(URL, json=body, headers=headers) for body in sent]
        return [answer.status_code for answer in answers]

    threads = Threads(client, await headers_of([], ()))
    await threads.append("t1", "Hi", namespace=["users", "ana"])
    assert await statuses([]) == [202, 202]
    assert await statuses([], "users", "ana") == [202, 403]
    assert await statuses([], "users", "ben") == [404, 403]
    assert await statuses(["elsewhere"]) == [404, 202]


RUNNING = {
    "summary": "They counted.",
    "summarized_message_ids": ["m1", "m2"],
    "last_summarized_message_id": "m2",
}
BAD_REQUESTS: list[tuple[JSON, str]] = [
    ({}, "needs either messages or thread_id"),
    ({"messages": TALK, "thread_id": "t1", **SMALL}, "needs either messages or thread_id"),
    ({"messages": TALK}, "lacks max_tokens"),
    ({"messages": TALK, "max_tokens": 256}, "max_tokens"),
    ({"messages": TALK, "schema": {"type": "object"}, **SMALL}, "has schema"),
    ({"messages": TALK, "mode": "extract", "max_tokens": 900}, "has max_tokens"),
    ({"messages": TALK, "mode": "extract", "schema": {"type": "string"}}, "schema"),
    ({"messages": [TALK[0], TALK[0]], **SMALL}, "messages[1].id"),
    ({"messages": [{"content": "Hi"}], **SMALL}, "messages[0].role"),
    ({"messages": TALK, "token_counter": "exact", "max_tokens": 900}, "token_counter"),
    ({"thread_id": "t1", "running_summary": RUNNING, **SMALL}, "the thread keeps its own"),
    ({"messages": [says("Hi")], "running_summary": RUNNING, **SMALL}, "needs an id"),
    ({"messages": [TALK[1], TALK[0]], "running_summary": RUNNING, **SMALL}, '"m1" is covered'),
    ({"messages": [], "running_summary": {**RUNNING, "summary": ""}, **SMALL}, "summary"),
]


async def test_bad_requests_are_refused(summaries: Summaries) -> None:
    for body, problem in BAD_REQUESTS:
        answer = await summaries.submit(status=422, **body)
        assert problem in answer["detail"], body
    for body in ({"max_tokens": 10_000}, {"mode": "extract"}):
        answer = await summaries.submit(status=422, model="openai:x", messages=TALK, **body)
        assert answer["code"] == "model_not_allowed"
    answer = await summaries.submit(status=404, thread_id="t1", **SMALL)
    assert answer["code"] == "thread_not_found"
