from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from app.jobs.record import State
from tests.prompts.optimize_jobs import CASE, JSON, TALK, OptimizeJobs, likes, model
from tests.support.jobs import in_state, job_row, until
from tests.support.llm_server import LLMServer, Received, Reply, calls, cut, fails, refuses

pytestmark = pytest.mark.slow  # each waits for workers or models

OLD, NEW = "Answer {name}.", "Answer {name} in one sentence."
STORED: JSON = {"name": "support"}
EVALUATION: JSON = {"cases": [{**CASE, "variables": {"name": "Ana"}}]}
WELL = model(NEW, judge=likes("one sentence"))

Asked = Callable[[Received], bool]


@pytest.fixture(autouse=True)
async def support(optimizing: OptimizeJobs) -> None:
    await optimizing.put("support", OLD)


def offered(tool: str) -> Asked:
    return lambda received: any(tool == one.name for one in received.tools)


def answering(system: str) -> Asked:
    return lambda received: not received.tools and received.system == system


def instead(asked: Asked, *replies: Reply) -> Callable[[Received], Reply]:
    """Return a `respond` that at first gives other replies to some requests."""
    waiting = list(replies)

    def respond(received: Received) -> Reply:
        return waiting.pop(0) if waiting and asked(received) else WELL(received)

    return respond


def always(asked: Asked, reply: Reply) -> Callable[[Received], Reply]:
    return lambda received: reply if asked(received) else WELL(received)


async def evaluated(optimizing: OptimizeJobs) -> JSON:
    found: JSON = await optimizing.result(prompt=STORED, evaluation=EVALUATION)
    return found


BUSY = [fails(429, retry_after=0.01)] * 5
"""So that of two calls side by side one fails as often as an SDK tries."""


@pytest.mark.parametrize("tool", ["recommend", "improve", "verdict"])
async def test_a_provider_that_is_busy_puts_the_job_off(
    optimizing: OptimizeJobs, llm: LLMServer, tool: str
) -> None:
    llm.respond = instead(offered(tool), *BUSY)
    job = await optimizing.job(prompt=STORED, evaluation=EVALUATION)
    assert (job["state"], job["attempt"]) == ("succeeded", 2)
    [found] = job["result"]["prompts"]
    assert (found["version"], found["labels"]) == (2, ["candidate", "production"])
    assert (await optimizing.get("support"))["version"] == 2


async def test_a_provider_that_stays_away_fails_the_job_and_nothing_is_stored(
    optimizing: OptimizeJobs, llm: LLMServer
) -> None:
    llm.respond = always(answering("Answer Ana."), fails(503, retry_after=0.01))
    job = await optimizing.job(prompt=STORED, evaluation=EVALUATION)
    assert (job["state"], job["error"]["code"]) == ("failed", "provider_unavailable")
    assert (job["attempt"], job["max_attempts"]) == (5, 5)
    assert (await optimizing.get("support"))["version"] == 1


async def test_a_job_whose_key_is_refused_waits(optimizing: OptimizeJobs, llm: LLMServer) -> None:
    llm.respond = always(offered("verdict"), fails(401))
    job = await optimizing.submit(prompt=STORED, evaluation=EVALUATION)

    async def is_waiting() -> bool:
        row = await job_row(optimizing.resources.database, job["id"])
        return row["blocked_since"] is not None

    async with optimizing.working():
        await until(is_waiting)
    row = await job_row(optimizing.resources.database, job["id"])
    assert (row["state"], "401" in row["error"]) == ("queued", True)


@pytest.mark.parametrize("tool", ["recommend", "improve", "verdict"])
async def test_a_malformed_call_goes_back_to_the_model(
    optimizing: OptimizeJobs, llm: LLMServer, tool: str
) -> None:
    llm.respond = instead(offered(tool), calls((tool, '{"analysis": ')))
    found = await optimizing.result(
        prompt=STORED, evaluation=EVALUATION, model="openai:m", trajectories=[TALK]
    )
    assert (found["outcome"], found["evaluation"]["passed"]) == ("improved", True)
    assert len(llm.requests) == 3 + 4 + 1


REJECTED = [
    (refuses(), "refused"),
    (cut("Half a"), "cut off"),
    (calls(("improve", {"analysis": "", "improved_prompt": "Answer."})), "lacks {name}"),
    (calls(("improve", {"analysis": "", "improved_prompt": "{name} {x}"})), "has {x}"),
    (calls(("improve", {"analysis": "", "improved_prompt": " \n"})), "empty"),
    (calls(("improve", {"analysis": "", "improved_prompt": 7})), "must be the text"),
]


@pytest.mark.parametrize(("reply", "reason"), REJECTED)
async def test_what_is_no_usable_prompt_replaces_none(
    optimizing: OptimizeJobs, llm: LLMServer, reply: Reply, reason: str
) -> None:
    llm.respond = always(offered("improve"), reply)
    found = await evaluated(optimizing)
    assert (found["outcome"], found["changed"], found["text"]) == ("rejected", False, OLD)
    assert reason in found["reason"]
    assert (found["version"], found["evaluation"], found["diff"]) == (None, None, "")
    assert (await optimizing.get("support"))["version"] == 1


async def test_braces_that_are_only_braces_stay_as_the_model_wrote_them(
    optimizing: OptimizeJobs, llm: LLMServer
) -> None:
    text = 'Answer {name} as {"a": {"b": "{{x}}"}} in one sentence.'
    await optimizing.put("json", 'Answer {name} as {"a": {"b": "{{x}}"}}.')
    llm.respond = model(text, judge=likes("one sentence"))
    case = {**CASE, "variables": {"name": "Ana", "x": "{y}"}}
    found = await optimizing.result(prompt={"name": "json"}, evaluation={"cases": [case]})
    assert (found["text"], found["labels"]) == (text, ["candidate", "production"])
    assert (await optimizing.get("json", label="production"))["text"] == text
    [tried] = found["evaluation"]["cases"]
    assert tried["answers"]["old"]["text"] == 'Answer Ana as {"a": {"b": "{y}"}}.'


async def test_braces_that_only_look_like_variables_can_be_tried(
    optimizing: OptimizeJobs, llm: LLMServer
) -> None:
    text = "Answer in one sentence, with prices such as {price:.2f}."
    await optimizing.put("shop", "Answer.")
    llm.respond = model(text, judge=likes("one sentence"))
    found = await optimizing.result(prompt={"name": "shop"}, evaluation={"cases": [CASE]})
    assert (found["text"], found["labels"]) == (text, ["candidate", "production"])
    assert found["evaluation"]["cases"][0]["answers"]["new"]["text"] == text


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (refuses("No."), "The model refused to answer."),
        (cut("Answer Ana in"), "The answer was cut off; it was too long."),
        (fails(400, "the prompt is too long"), "The provider refused the request: "),
    ],
)
async def test_an_answer_that_is_none_is_told_with_the_case(
    optimizing: OptimizeJobs, llm: LLMServer, reply: Reply, problem: str
) -> None:
    llm.respond = always(answering("Answer Ana in one sentence."), reply)
    found = await evaluated(optimizing)
    [case] = found["evaluation"]["cases"]
    assert case["answers"]["new"]["problem"].startswith(problem)
    assert case["answers"]["old"] == {"text": "Answer Ana.", "problem": None}
    judged = [request for request in llm.requests if offered("verdict")(request)]
    assert all(f"<problem>{problem}" in request.last_user_text for request in judged)
    assert (found["version"], found["evaluation"]["promoted"]) == (2, False)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (refuses(), "The judge refused to answer."),
        (cut("I think"), "The judge gave no verdict: the tool `verdict` was not called."),
        (calls(("verdict", "{")), "The judge gave no verdict: the arguments are not"),
    ],
)
async def test_a_judge_that_gives_no_verdict_promotes_nothing(
    optimizing: OptimizeJobs, llm: LLMServer, reply: Reply, reason: str
) -> None:
    llm.respond = always(offered("verdict"), reply)
    found = await evaluated(optimizing)
    [case] = found["evaluation"]["cases"]
    assert (case["outcome"], found["labels"]) == ("tie", ["candidate"])
    for verdict in case["verdicts"]:
        assert verdict["preferred"] is None
        assert verdict["reason"].startswith(reason)


async def test_a_model_that_chooses_no_prompt_fails_the_job(
    optimizing: OptimizeJobs, llm: LLMServer
) -> None:
    llm.respond = always(offered("choose"), refuses())
    prompts: list[Any] = [STORED, {"name": "other", "text": "Hi."}]
    job = await optimizing.job(prompts=prompts)
    assert (job["state"], job["error"]["code"]) == ("failed", "invalid_output")
    assert (await optimizing.get("support"))["version"] == 1


@pytest.mark.parametrize(
    "asked", [offered("improve"), answering("Answer Ana."), offered("verdict")]
)
async def test_a_job_that_is_cancelled_midway_writes_nothing(
    optimizing: OptimizeJobs, llm: LLMServer, asked: Asked
) -> None:
    llm.respond = lambda received: replace(WELL(received), delay=60.0 if asked(received) else 0.0)
    job_id = (await optimizing.submit(prompt=STORED, evaluation=EVALUATION))["id"]

    async def it_is_asked() -> bool:
        return any(map(asked, llm.requests))

    async with optimizing.working():
        await until(it_is_asked)
        await optimizing.client.post(f"/v1/jobs/{job_id}/cancel")
        await in_state(optimizing.resources.database, job_id, State.CANCELLED)
    assert (await optimizing.get("support"))["version"] == 1
