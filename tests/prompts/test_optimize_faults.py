from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from app.jobs.record import State
from tests.prompts.optimize_jobs import CASE, JSON, OptimizeJobs, likes, model
from tests.support.jobs import in_state, job_row, until
from tests.support.llm_server import LLMServer, Received, Reply, calls, cut, fails, refuses

pytestmark = pytest.mark.slow  # each waits for workers or models

OLD, NEW = "Answer {name}.", "Answer {name} in one sentence."
STORED: JSON = {"name": "support"}
EVALUATION: JSON = {"cases": [{**CASE, "variables": {"name": "Ana"}}]}
WELL = model(NEW, judge=likes("one sentence"))

Matches = Callable[[Received], bool]


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


@pytest.mark.parametrize("tool", ["recommend", "improve", "verdict"])
async def test_a_busy_provider_delays_the_job(
    optimizing: OptimizeJobs, llm: LLMServer, tool: str
) -> None:
    llm.respond = first(offers(tool), *BUSY)
    job = await optimizing.job(prompt=STORED, evaluation=EVALUATION)
    assert (job["state"], job["attempt"]) == ("succeeded", 2)
    [found] = job["result"]["prompts"]
    assert (found["version"], found["labels"]) == (2, ["candidate", "production"])
    assert (await optimizing.get("support"))["version"] == 2


@pytest.mark.parametrize(
    ("matches", "reply", "code", "attempts"),
    [
        (is_answer_by("Answer Ana."), fails(503, retry_after=0.01), "provider_unavailable", 5),
        (offers("choose"), refuses(), "invalid_output", 1),
    ],
)
async def test_a_failed_job_stores_nothing(
    optimizing: OptimizeJobs,
    llm: LLMServer,
    matches: Matches,
    reply: Reply,
    code: str,
    attempts: int,
) -> None:
    llm.respond = always(matches, reply)
    body: dict[str, Any] = {"prompt": STORED, "evaluation": EVALUATION}
    if code == "invalid_output":
        body = {"prompts": [STORED, {"name": "other", "text": "Hi."}]}
    job = await optimizing.job(**body)
    assert (job["state"], job["error"]["code"]) == ("failed", code)
    assert job["attempt"] == attempts
    assert (await optimizing.get("support"))["version"] == 1


async def test_a_job_whose_key_is_refused_is_blocked(
    optimizing: OptimizeJobs, llm: LLMServer
) -> None:
    llm.respond = always(offers("verdict"), fails(401))
    job = await optimizing.submit(prompt=STORED, evaluation=EVALUATION)

    async def is_blocked() -> bool:
        row = await job_row(optimizing.resources.database, job["id"])
        return row["blocked_since"] is not None

    async with optimizing.working():
        await until(is_blocked)
    row = await job_row(optimizing.resources.database, job["id"])
    assert (row["state"], "401" in row["error"]) == ("queued", True)


@pytest.mark.parametrize("reply", [refuses(), cut("Half a"), calls(("improve", '{"analysis": '))])
async def test_an_unusable_text_replaces_nothing(
    optimizing: OptimizeJobs, llm: LLMServer, reply: Reply
) -> None:
    llm.respond = always(offers("improve"), reply)
    found = await optimizing.result(prompt=STORED, evaluation=EVALUATION)
    assert (found["outcome"], found["changed"], found["text"]) == ("rejected", False, OLD)
    assert (found["version"], found["evaluation"], found["diff"]) == (None, None, "")
    assert (await optimizing.get("support"))["version"] == 1


@pytest.mark.parametrize(
    "matches", [offers("improve"), is_answer_by("Answer Ana."), offers("verdict")]
)
async def test_a_cancelled_job_stores_nothing(
    optimizing: OptimizeJobs, llm: LLMServer, matches: Matches
) -> None:
    llm.respond = lambda received: replace(WELL(received), delay=60.0 if matches(received) else 0.0)
    job_id = (await optimizing.submit(prompt=STORED, evaluation=EVALUATION))["id"]

    async def is_asked() -> bool:
        return any(map(matches, llm.requests))

    async with optimizing.working():
        await until(is_asked)
        await optimizing.client.post(f"/v1/jobs/{job_id}/cancel")
        await in_state(optimizing.resources.database, job_id, State.CANCELLED)
    assert (await optimizing.get("support"))["version"] == 1
