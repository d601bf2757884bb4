from typing import Any

import pytest

from app.auth.access import Grant, Verb
from app.auth.service import KeyService
from tests.prompts.optimize_jobs import CASE, JSON, TALK, URL, OptimizeJobs, model
from tests.support.llm_server import LLMServer

pytestmark = pytest.mark.slow  # each starts the application

INLINE: JSON = {"name": "support", "text": "Answer {name}."}
NAMED: JSON = {**CASE, "variables": {"name": "Ana"}}
LONG = "a" * 50_000


def evaluating(*cases: JSON, **more: Any) -> JSON:
    return {"prompt": INLINE, "evaluation": {"cases": list(cases), **more}}


WRONG: list[tuple[JSON, str, str]] = [
    ({}, "body", "needs either prompt or prompts"),
    ({"prompt": INLINE, "prompts": [INLINE]}, "body", "needs either prompt or prompts"),
    ({"prompts": []}, "prompts", "at least 1 item"),
    ({"prompts": [INLINE] * 21}, "prompts", "at most 20 items"),
    ({"prompts": [INLINE, INLINE]}, "body", 'has two prompts called "support"'),
    ({"prompt": {**INLINE, "text": " "}}, "prompt.text", "is empty"),
    ({"prompt": {**INLINE, "label": "beta"}}, "prompt", "has text and label; send one"),
    ({"prompt": {**INLINE, "version": 1}}, "prompt", "has text and version; send one"),
    ({"prompt": {"name": "a", "version": 1, "label": "b"}}, "prompt", "has label and version"),
    ({"prompt": INLINE, "kind": "magic"}, "kind", "'gradient', 'metaprompt' or 'prompt_memory'"),
    ({"prompt": INLINE, "trajectories": [TALK] * 101}, "trajectories", "at most 100 items"),
    ({"prompt": INLINE, "config": {"steps": 3}}, "config.steps", "no such field"),
    (
        {"prompt": INLINE, "config": {"max_reflection_steps": 11}},
        "config.max_reflection_steps",
        "less than or equal to 10",
    ),
    (
        {"prompt": INLINE, "config": {"min_reflection_steps": 6}},
        "config",
        "has min_reflection_steps 6, which is more than max_reflection_steps 5",
    ),
    (
        {"prompt": INLINE, "kind": "metaprompt", "config": {"gradient_prompt": "Why?"}},
        "config.gradient_prompt",
        "The kind metaprompt has no config.gradient_prompt; it takes max_reflection_steps, ",
    ),
    (
        {"prompt": INLINE, "kind": "prompt_memory", "config": {"max_reflection_steps": 1}},
        "config.max_reflection_steps",
        "it takes no config at all",
    ),
    (
        {"prompts": [{"name": f"p{n}", "text": LONG * 2} for n in range(5)]},
        "prompts",
        "have 500,000 characters",
    ),
    (evaluating(), "evaluation.cases", "at least 1 item"),
    (evaluating(*[NAMED] * 51), "evaluation.cases", "at most 50 items"),
    (evaluating(CASE), "evaluation.cases[0].variables.name", 'needs the variable "name"'),
    (
        evaluating(NAMED, {**NAMED, "prompt": "other"}),
        "evaluation.cases[1].prompt",
        '"other" is none of the prompts to improve (support)',
    ),
    (
        evaluating({**NAMED, "messages": [["system", "Hi"], ["user", "Hi"]]}),
        "evaluation.cases[0].messages[0]",
        "is a system message",
    ),
    (
        evaluating({**NAMED, "messages": [["user", "Hi"], ["assistant", "Hi"]]}),
        "evaluation.cases[0].messages[1]",
        "the last message has to be the user's",
    ),
    (
        evaluating({**NAMED, "messages": [{"role": "robot", "content": "Hi"}]}),
        "evaluation.cases[0].messages[0].role",
        'is "robot"',
    ),
    (evaluating({**NAMED, "expected": " "}), "evaluation.cases[0].expected", "is empty; say what"),
    (
        evaluating({**NAMED, "variables": {"name": "Ana", "\x00": ""}}),
        "evaluation.cases[0].variables",
        "a key with a NUL",
    ),
    (evaluating(*[{**NAMED, "expected": LONG}] * 9), "evaluation.cases", "have 450,135"),
    (evaluating(NAMED, margin=1.5), "evaluation.margin", "less than or equal to 1"),
    (evaluating(NAMED, promote="no"), "evaluation.promote", "neither true nor false"),
    (
        {
            "prompts": [{"name": f"p{n}", "text": "Hi."} for n in range(5)],
            "evaluation": {"cases": [CASE] * 21},
        },
        "evaluation.cases",
        "21 cases for 5 prompts are 105 trials; one job makes at most 100",
    ),
]


@pytest.mark.parametrize(("body", "field", "problem"), WRONG)
async def test_what_makes_no_sense_is_refused(
    optimizing: OptimizeJobs, llm: LLMServer, body: JSON, field: str, problem: str
) -> None:
    answer = await optimizing.submit(status=422, **body)
    assert problem in answer["detail"]
    assert [error["field"] for error in answer["errors"]] == [field]
    assert llm.requests == []


@pytest.mark.parametrize(
    ("reference", "code"),
    [
        ({}, "prompt_not_found"),
        ({"version": 2}, "prompt_version_not_found"),
        ({"label": "beta"}, "prompt_label_not_found"),
    ],
)
async def test_a_prompt_that_is_not_there_is_not_found(
    optimizing: OptimizeJobs, reference: JSON, code: str
) -> None:
    if reference:
        await optimizing.put("support", "Answer.")
    answer = await optimizing.submit(status=404, prompt={"name": "support", **reference})
    assert answer["code"] == code


@pytest.mark.parametrize(
    "body",
    [
        {"model": "openai:m"},
        {"evaluation": {"cases": [NAMED], "model": "openai:m"}},
        {"evaluation": {"cases": [NAMED], "judge": "openai:m"}},
    ],
)
async def test_a_model_without_a_key_is_refused(keyless: OptimizeJobs, body: JSON) -> None:
    answer = await keyless.submit(status=422, prompt=INLINE, **body)
    assert answer["code"] == "llm_not_configured"


@pytest.mark.parametrize(
    "body",
    [
        {"model": "openai:other"},
        {"model": "openai:other", "trajectories": []},
        {"evaluation": {"cases": [NAMED], "model": "openai:other"}},
        {"evaluation": {"cases": [NAMED], "judge": "openai:other"}},
    ],
)
async def test_a_model_that_is_not_allowed_is_refused(optimizing: OptimizeJobs, body: JSON) -> None:
    answer = await optimizing.submit(status=422, prompt=INLINE, **body)
    assert answer["code"] == "model_not_allowed"
    assert '"openai:m"' in answer["detail"]


async def test_the_same_submission_leads_to_the_same_job(optimizing: OptimizeJobs) -> None:
    headers = {"idempotency-key": "once"}
    first = await optimizing.submit(headers=headers, prompt=INLINE)
    assert (await optimizing.submit(headers=headers, prompt=INLINE))["id"] == first["id"]
    await optimizing.submit(status=409, headers=headers, prompt={**INLINE, "text": "Other."})


ALL = "jobs read write admin"
CANDIDATE_ONLY: JSON = {"evaluation": {"cases": [CASE], "promote": False}}
GATED: JSON = {"evaluation": {"cases": [CASE]}}


async def key(
    optimizing: OptimizeJobs, *grants: Grant, root: list[str] | None = None
) -> dict[str, str]:
    """Return the headers of a new key, which may do everything if no grants are given."""
    keys = KeyService(optimizing.resources.database, optimizing.resources.clock)
    chosen = grants or (Grant((), frozenset(Verb)),)
    token = await keys.create("test", root=root or [], grants=chosen, expires_at=None)
    return {"x-api-key": str(token)}


@pytest.mark.parametrize(
    ("verbs", "prefix", "body", "status"),
    [
        ("jobs", (), {"prompt": INLINE}, 202),
        ("jobs", (), {"prompt": INLINE, "evaluation": {"cases": [NAMED]}}, 202),
        ("read write admin", (), {"prompt": INLINE}, 403),
        (ALL, ("users",), {"prompt": INLINE}, 403),
        ("jobs read write", (), {}, 202),
        ("jobs read", (), {}, 403),
        ("jobs write", (), {}, 403),
        ("jobs read write", (), GATED, 403),
        ("jobs read write", (), CANDIDATE_ONLY, 202),
        (ALL, (), GATED, 202),
    ],
)
async def test_keys_improve_only_what_they_may(
    optimizing: OptimizeJobs, verbs: str, prefix: tuple[str, ...], body: JSON, status: int
) -> None:
    await optimizing.put("support", "Answer.", headers=await key(optimizing))
    sent = {"prompt": {"name": "support"}, **body}
    headers = await key(optimizing, Grant(prefix, frozenset(map(Verb, verbs.split()))))
    await optimizing.submit(status=status, headers=headers, **sent)


async def test_a_key_improves_prompts_of_its_root_alone(optimizing: OptimizeJobs) -> None:
    await optimizing.put("support", "Answer.", headers=await key(optimizing))
    headers = await key(optimizing, root=["elsewhere"])
    answer = await optimizing.submit(status=404, headers=headers, prompt={"name": "support"})
    assert answer["code"] == "prompt_not_found"


async def test_whoever_waits_is_answered_with_the_job_done(
    optimizing: OptimizeJobs, llm: LLMServer
) -> None:
    llm.respond = model("Answer {name} briefly.")
    body = {"prompt": INLINE, "trajectories": [TALK]}
    async with optimizing.working():
        response = await optimizing.client.post(URL, json=body, headers={"prefer": "wait=20"})
    assert response.status_code == 200, response.text
    assert response.json()["result"]["prompts"][0]["text"] == "Answer {name} briefly."
