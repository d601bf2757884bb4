from typing import Any

import pytest

from app.auth.access import Grant, Verb
from app.auth.service import KeyService
from tests.prompts.optimize_jobs import CASE, JSON, TALK, URL, OptimizeJobs, model
from tests.support.keys import grant, key_with
from tests.support.llm_server import LLMServer

pytestmark = pytest.mark.slow  # each starts the application

INLINE: JSON = {"name": "support", "text": "Answer {name}."}
NAMED: JSON = {**CASE, "variables": {"name": "Ana"}}
LONG = "a" * 50_000


def evaluating(*cases: JSON, **more: Any) -> JSON:
    return {"prompt": INLINE, "evaluation": {"cases": list(cases), **more}}


WRONG: list[tuple[JSON, str]] = [
    ({}, "body"),
    ({"prompt": INLINE, "prompts": [INLINE]}, "body"),
    ({"prompts": [INLINE] * 21}, "prompts"),
    ({"prompts": [INLINE, INLINE]}, "body"),
    ({"prompts": [{"name": f"p{n}", "text": LONG * 2} for n in range(5)]}, "prompts"),
    ({"prompt": {**INLINE, "text": " "}}, "prompt.text"),
    ({"prompt": {**INLINE, "label": "beta"}}, "prompt"),
    ({"prompt": {"name": "a", "version": 1, "label": "b"}}, "prompt"),
    ({"prompt": INLINE, "kind": "magic"}, "kind"),
    ({"prompt": INLINE, "trajectories": [TALK] * 101}, "trajectories"),
    ({"prompt": INLINE, "config": {"max_reflection_steps": 11}}, "config.max_reflection_steps"),
    ({"prompt": INLINE, "config": {"min_reflection_steps": 6}}, "config"),
    (
        {"prompt": INLINE, "kind": "metaprompt", "config": {"gradient_prompt": "Why?"}},
        "config.gradient_prompt",
    ),
    (evaluating(), "evaluation.cases"),
    (evaluating(*[NAMED] * 51), "evaluation.cases"),
    (evaluating(*[{**NAMED, "expected": LONG}] * 9), "evaluation.cases"),
    (
        {
            "prompts": [{"name": f"p{n}", "text": "Hi."} for n in range(5)],
            "evaluation": {"cases": [CASE] * 21},
        },
        "evaluation.cases",
    ),
    (evaluating(CASE), "evaluation.cases[0].variables.name"),
    (evaluating(NAMED, {**NAMED, "prompt": "other"}), "evaluation.cases[1].prompt"),
    (
        evaluating({**NAMED, "messages": [["user", "Hi"], ["assistant", "Hi"]]}),
        "evaluation.cases[0].messages[1]",
    ),
    (evaluating({**NAMED, "expected": " "}), "evaluation.cases[0].expected"),
    (evaluating(NAMED, margin=1.5), "evaluation.margin"),
]


async def test_errors_in_requests_are_named(optimizing: OptimizeJobs, llm: LLMServer) -> None:
    for body, field in WRONG:
        answer = await optimizing.submit(status=422, **body)
        assert [error["field"] for error in answer["errors"]] == [field], answer
    for body in ({"model": "anthropic: x"}, {"evaluation": {"cases": [NAMED], "judge": "x:y"}}):
        await optimizing.submit(status=422, prompt=INLINE, **body)
    assert llm.requests == []


async def test_a_missing_prompt_version_or_label_is_not_found(optimizing: OptimizeJobs) -> None:
    answer = await optimizing.submit(status=404, prompt={"name": "support"})
    assert answer["code"] == "prompt_not_found"
    await optimizing.put("support", "Answer.")
    for reference, code in (
        ({"version": 2}, "prompt_version_not_found"),
        ({"label": "beta"}, "prompt_label_not_found"),
    ):
        answer = await optimizing.submit(status=404, prompt={"name": "support", **reference})
        assert answer["code"] == code


async def test_a_model_needs_a_key_and_permission(
    keyless: OptimizeJobs, optimizing: OptimizeJobs
) -> None:
    for jobs, name, code in (
        (keyless, "openai:m", "llm_not_configured"),
        (optimizing, "openai:other", "model_not_allowed"),
    ):
        for body in (
            {"prompt": INLINE, "model": name},
            evaluating(NAMED, model=name),
            evaluating(NAMED, judge=name),
        ):
            assert (await jobs.submit(status=422, **body))["code"] == code


ALL = "jobs read write admin"
CANDIDATE_ONLY: JSON = {"evaluation": {"cases": [CASE], "promote": False}}
GATED: JSON = {"evaluation": {"cases": [CASE]}}


async def key(optimizing: OptimizeJobs, *grants: Grant, root: str = "") -> dict[str, str]:
    """Return the headers of a new key, which may do everything if no grants are given."""
    keys = KeyService(optimizing.resources.database, optimizing.resources.clock)
    return await key_with(keys, *grants or [grant(Verb)], root=(root,) if root else ())


GRANTS: list[tuple[str, tuple[str, ...], JSON, int]] = [
    ("jobs", (), {"prompt": INLINE}, 202),
    ("jobs", (), evaluating(NAMED), 202),
    ("read write admin", (), {"prompt": INLINE}, 403),
    (ALL, ("users",), {"prompt": INLINE}, 403),
    ("jobs read write", (), {}, 202),
    ("jobs read", (), {}, 403),
    ("jobs write", (), {}, 403),
    ("jobs read write", (), GATED, 403),
    ("jobs read write", (), CANDIDATE_ONLY, 202),
    (ALL, (), GATED, 202),
]


async def test_a_job_needs_the_grants_for_everything_it_does(optimizing: OptimizeJobs) -> None:
    await optimizing.put("support", "Answer.", headers=await key(optimizing))
    for verbs, prefix, body, status in GRANTS:
        sent = {"prompt": {"name": "support"}, **body}
        headers = await key(optimizing, grant(map(Verb, verbs.split()), *prefix))
        await optimizing.submit(status=status, headers=headers, **sent)


async def test_a_key_improves_only_prompts_of_its_root(optimizing: OptimizeJobs) -> None:
    await optimizing.put("support", "Answer.", headers=await key(optimizing))
    headers = await key(optimizing, root="elsewhere")
    await optimizing.submit(status=404, headers=headers, prompt={"name": "support"})


async def test_a_request_that_waits_returns_the_finished_job(
    optimizing: OptimizeJobs, llm: LLMServer
) -> None:
    llm.respond = model("Answer {name} briefly.")
    body = {"prompt": INLINE, "trajectories": [TALK]}
    async with optimizing.working():
        response = await optimizing.client.post(URL, json=body, headers={"prefer": "wait=20"})
    assert response.status_code == 200, response.text
    assert response.json()["result"]["prompts"][0]["text"] == "Answer {name} briefly."
