import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from app.jobs import worker
from app.jobs.record import State
from tests.prompts.optimize_jobs import CASE, JSON, OptimizeJobs, likes, model
from tests.support.jobs import in_state, until
from tests.support.llm_server import LLMServer, Received, Reply, calls, cut, fails, refuses

pytestmark = pytest.mark.slow  # each waits for workers or models

OLD, NEW = "Answer {name}.", "Answer {name} in one sentence."
STORED: JSON = {"name": "support"}
EVALUATION: JSON = {"cases": [{**CASE, "variables": {"name": "Ana"}}]}
WELL = model(NEW, judge=likes("one sentence"))

Matches = Callable[[Received], bool]


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "POLL_SECONDS", 0.02)


@pytest.fixture(autouse=True)
async def support(optimizing: OptimizeJobs) -> None:
    await optimizing.put("support", OLD)


def offers(tool: str) -> Matches:
    return lambda received: any(tool == one.name for one in received.tools)


def is_answer_by(system: str) -> Matches:
    return lambda received: not received.tools and received.system == system


def first(matches: Matches, *replies: Reply) -> Callable[[Received], Reply]:
    """Return a `respond` that at first gives other replies to some requests."""
    pending = list(replies)

    def respond(received: Received) -> Reply:
        return pending.pop(0) if pending and matches(received) else WELL(received)

    return respond


def always(matches: Matches, reply: Reply) -> Callable[[Received], Reply]:
    return lambda received: reply if matches(received) else WELL(received)


BUSY = [fails(429, retry_after=0.01)] * 5
"""So that one of two concurrent calls fails as often as an SDK tries."""


@pytest.mark.parametrize("tool", ["improve", "verdict"])
async def test_a_busy_provider_delays_the_job(
    optimizing: OptimizeJobs, llm: LLMServer, tool: str
) -> None:
    llm.respond = first(offers(tool), *BUSY)
    job = await optimizing.job(prompt=STORED, evaluation=EVALUATION)
    assert (job["state"], job["attempt"]) == ("succeeded", 2)
    [found] = job["result"]["prompts"]
    assert (found["version"], found["labels"]) == (2, ["candidate", "production"])


async def test_a_failed_job_stores_nothing(optimizing: OptimizeJobs, llm: LLMServer) -> None:
    llm.respond = always(is_answer_by("Answer Ana."), fails(503, retry_after=0.01))
    job = await optimizing.job(prompt=STORED, evaluation=EVALUATION)
    assert (job["state"], job["error"]["code"]) == ("failed", "provider_unavailable")
    llm.respond = always(offers("choose"), refuses())
    job = await optimizing.job(prompts=[STORED, {"name": "other", "text": "Hi."}])
    assert (job["state"], job["error"]["code"]) == ("failed", "refused")
    assert job["attempt"] == 1
    assert (await optimizing.get("support"))["version"] == 1


async def test_an_unusable_text_replaces_nothing(optimizing: OptimizeJobs, llm: LLMServer) -> None:
    llm.respond = always(offers("improve"), refuses())
    found = await optimizing.result(prompt=STORED, evaluation=EVALUATION)
    assert (found["outcome"], found["changed"], found["text"]) == ("rejected", False, OLD)
    assert (found["version"], found["evaluation"], found["diff"]) == (None, None, "")


async def test_a_prompt_without_an_answer_costs_the_others_nothing(
    optimizing: OptimizeJobs, llm: LLMServer
) -> None:
    both = calls(("choose", {"reasoning": "", "which": ["support", "other"]}))

    def respond(asked: Received) -> Reply:
        if offers("choose")(asked):
            return both
        return cut("H") if offers("improve")(asked) and "Hi." in str(asked.body) else WELL(asked)

    llm.respond = respond
    job = await optimizing.job(prompts=[STORED, {"name": "other", "text": "Hi."}])
    outcomes = [found["outcome"] for found in job["result"]["prompts"]]
    assert (job["state"], outcomes) == ("succeeded", ["improved", "rejected"])
    paid = [asked for asked in llm.requests if "Hi." not in str(asked.body)]
    assert sum(map(offers("choose"), llm.requests)) == sum(map(offers("improve"), paid)) == 1


async def test_a_cancelled_job_stores_nothing(optimizing: OptimizeJobs, llm: LLMServer) -> None:
    is_judged = offers("verdict")
    llm.respond = lambda asked: replace(WELL(asked), delay=60.0 if is_judged(asked) else 0.0)
    job_id = (await optimizing.submit(prompt=STORED, evaluation=EVALUATION))["id"]
    async with optimizing.working():
        await until(lambda: asyncio.sleep(0, any(map(is_judged, llm.requests))))
        await optimizing.client.post(f"/v1/jobs/{job_id}/cancel")
        await in_state(optimizing.resources.database, job_id, State.CANCELLED)
    assert (await optimizing.get("support"))["version"] == 1
