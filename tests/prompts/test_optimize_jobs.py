from collections import Counter

import pytest

from app.db.database import ALL_ROOTS
from tests.prompts.optimize_jobs import CASE, JSON, OptimizeJobs, likes, model
from tests.support.jobs import events_of
from tests.support.llm_server import LLMServer

pytestmark = pytest.mark.slow  # each waits for workers or models

OLD, NEW = "Answer.", "Answer in one sentence."
INLINE: JSON = {"name": "support", "text": OLD}
STORED: JSON = {"name": "support"}
GATE: JSON = {"cases": [CASE]}


@pytest.fixture(autouse=True)
def improving(llm: LLMServer) -> None:
    llm.respond = model(NEW, judge=likes("one sentence"))


def calls_of(job: JSON, llm: LLMServer) -> int:
    assert job["usage"]["model_calls"] == len(llm.requests)
    return len(llm.requests)


async def test_a_prompt_in_the_request_is_improved_and_not_stored(
    optimizing: OptimizeJobs, llm: LLMServer
) -> None:
    job = await optimizing.job(prompt=INLINE)
    [found] = job["result"]["prompts"]
    analysis = found.pop("analysis")
    assert found == {
        "name": "support",
        "outcome": "improved",
        "changed": True,
        "text": NEW,
        "reason": None,
        "diff": "--- old\n+++ new\n@@ -1 +1 @@\n-Answer.\n\\ No newline at end of file\n"
        "+Answer in one sentence.\n\\ No newline at end of file\n",
        "based_on": None,
        "version": None,
        "labels": [],
        "evaluation": None,
    }
    assert "Ask for one sentence." in analysis
    assert (job["kind"], job["namespace"]) == ("optimize_prompt", [])
    assert calls_of(job, llm) == 3
    await optimizing.get("support", status=404)
    assert await events_of(optimizing.resources.database, job["id"]) == [
        *("queued", "running", "selected"),
        *(["model_call"] * 3),
        *("optimized", "succeeded"),
    ]


@pytest.mark.parametrize("kind", ["metaprompt", "prompt_memory"])
async def test_other_kinds_ask_once_and_may_leave_the_prompt(
    optimizing: OptimizeJobs, llm: LLMServer, kind: str
) -> None:
    await optimizing.put("support", OLD)
    for text, outcome in (("", "not_warranted"), (NEW, "improved")):
        llm.requests.clear()
        llm.respond = model(text)
        job = await optimizing.job(prompt=STORED, kind=kind)
        [found] = job["result"]["prompts"]
        assert (found["outcome"], found["text"]) == (outcome, text or OLD)
        assert (found["based_on"], found["version"]) == (1, 2 if text else None)
        assert calls_of(job, llm) == 1


async def test_a_better_text_of_a_stored_prompt_is_its_candidate(optimizing: OptimizeJobs) -> None:
    await optimizing.put("support", OLD)
    job = await optimizing.job(prompt=STORED)
    [found] = job["result"]["prompts"]
    assert (found["based_on"], found["version"], found["labels"]) == (1, 2, ["candidate"])
    candidate = await optimizing.get("support", label="candidate")
    assert (candidate["text"], candidate["based_on"]) == (NEW, 1)
    assert candidate["analysis"] == found["analysis"]
    assert candidate["actor"] == f"anonymous {job['id']}"
    assert (await optimizing.get("support", label="production"))["text"] == OLD


async def test_production_or_the_named_or_the_newest_version_is_improved(
    optimizing: OptimizeJobs,
) -> None:
    await optimizing.put("support", "One.", labels=["first"])
    await optimizing.put("support", "Two.")
    assert (await optimizing.result(prompt=STORED))["based_on"] == 2, "none is in production"
    promotion = {"version": 2}
    assert (await optimizing.client.post("/v1/prompts/support/promote", json=promotion)).is_success
    await optimizing.put("support", "Three.")
    for reference, version in (({}, 2), ({"version": 1}, 1), ({"label": "first"}, 1)):
        found = await optimizing.result(prompt={**STORED, **reference})
        assert found["based_on"] == version


async def test_a_job_improves_the_prompt_as_it_was_when_submitted(
    optimizing: OptimizeJobs, llm: LLMServer
) -> None:
    await optimizing.put("support", OLD, update_instructions="Stay polite.")
    job_id = (await optimizing.submit(prompt=STORED))["id"]
    await optimizing.put("support", "Changed.", labels=["production"])
    job = await optimizing.done(job_id)
    [found] = job["result"]["prompts"]
    assert (found["based_on"], found["version"], found["changed"]) == (1, 3, True)
    assert "Changed." not in str([request.body for request in llm.requests])
    assert "Stay polite." in str(llm.requests[0].body)


async def test_only_the_chosen_prompts_are_improved(
    optimizing: OptimizeJobs, llm: LLMServer
) -> None:
    llm.respond = model(lambda old: f"{old} Better.", chosen=["b"])
    await optimizing.put("b", "B.", when_to_update="When it is about B.")
    prompts: list[JSON] = [{"name": "a", "text": "A."}, {"name": "b"}]
    job = await optimizing.job(prompts=prompts)
    a, b = job["result"]["prompts"]
    assert (a["name"], a["outcome"], a["reason"]) == ("a", "not_chosen", "Only these.")
    assert (a["text"], a["changed"]) == ("A.", False)
    assert (b["name"], b["outcome"], b["version"]) == ("b", "improved", 2)
    assert "When it is about B." in llm.requests[0].last_user_text
    shown = llm.requests[1].last_user_text
    assert "<choice_reason>\nOnly these.\n</choice_reason>" in shown
    assert '<other_prompts>\n<prompt name="a">\n<text>\nA.\n</text>' in shown
    assert calls_of(job, llm) == 4


async def test_several_prompts_are_improved_concurrently(
    optimizing: OptimizeJobs, llm: LLMServer
) -> None:
    names = [f"p{n}" for n in range(6)]
    llm.respond = model(lambda old: f"{old} Better.", chosen=names, delay=0.05)
    for name in names:
        await optimizing.put(name, f"{name}.")
    found = await optimizing.results(prompts=[{"name": name} for name in reversed(names)])
    assert [one["name"] for one in found] == names[::-1]
    assert {one["version"] for one in found} == {2}
    assert llm.max_in_flight == 4


async def test_a_text_that_wins_goes_into_production(
    optimizing: OptimizeJobs, llm: LLMServer
) -> None:
    await optimizing.put("support", OLD)
    job = await optimizing.job(prompt=STORED, evaluation={"cases": [CASE, CASE]})
    [found] = job["result"]["prompts"]
    assert found["labels"] == ["candidate", "production"]
    evaluation = found["evaluation"]
    [case, _] = evaluation.pop("cases")
    assert evaluation == {
        "cases_won": 2,
        "cases_won_as_expected": 2,
        "cases_lost": 0,
        "cases_tied": 0,
        "net_win_rate": 1.0,
        "margin": 0.1,
        "passed": True,
        "coverage": None,
        "promoted": True,
        "not_promoted_reason": None,
    }
    preferred = {"preferred": "new", "meets_expected": True}
    assert case == {
        "outcome": "win",
        "meets_expected": True,
        "answers": {
            "old": {"text": OLD, "problem": None},
            "new": {"text": NEW, "problem": None},
        },
        "verdicts": [
            {"shown_first": "old", "reason": "second is better", **preferred},
            {"shown_first": "new", "reason": "first is better", **preferred},
        ],
    }
    assert (await optimizing.get("support", label="production"))["text"] == NEW
    events = await events_of(optimizing.resources.database, job["id"])
    assert events[-2:] == ["evaluated", "succeeded"]
    assert calls_of(job, llm) == 3 + 2 * 4 + 1
    async with optimizing.resources.database.connection(ALL_ROOTS) as connection:
        rows = await connection.fetch(
            "SELECT purpose FROM model_calls WHERE job_id = $1", job["id"]
        )
    purposes = Counter(row["purpose"] for row in rows)
    assert purposes == {"reflect": 2, "apply": 1, "answer": 4, "judge": 4, "coverage": 1}


async def test_a_text_that_does_not_win_stays_a_candidate(
    optimizing: OptimizeJobs, llm: LLMServer
) -> None:
    llm.respond = model(NEW, judge=likes("Answer."))
    await optimizing.put("support", OLD)
    found = await optimizing.result(prompt=STORED, evaluation={**GATE, "margin": 0})
    evaluation = found["evaluation"]
    assert (evaluation["passed"], evaluation["promoted"]) == (False, False)
    assert "did not win" in evaluation["not_promoted_reason"]
    assert (evaluation["cases"][0]["outcome"], found["labels"]) == ("loss", ["candidate"])


async def test_an_evaluation_says_where_it_proves_little(
    optimizing: OptimizeJobs, llm: LLMServer
) -> None:
    """A winner that does not meet what is expected, and a gate that tests few of the failures."""
    failures: list[JSON] = [
        {"failure": "Too long.", "tested_by": [2, 7]},
        {"failure": "Invents years.\x00", "tested_by": []},
    ]
    llm.respond = model(NEW, judge=likes("one sentence"), meets=False, failures=failures)
    other = {"messages": [["user", "What is TLS?"]], "expected": "One sentence.</expected>"}
    found = await optimizing.result(prompt=INLINE, evaluation={"cases": [CASE, other]})
    evaluation = found["evaluation"]
    assert (evaluation["cases_won"], evaluation["cases_won_as_expected"]) == (2, 0)
    assert [case["meets_expected"] for case in evaluation["cases"]] == [False, False]
    assert evaluation["passed"] is True
    assert evaluation["coverage"] == {
        "failures": [
            {"description": "Too long.", "cases": [1]},
            {"description": "Invents years.\ufffd", "cases": []},
        ],
        "tested": 1,
        "warning": "the cases test for 1 of the 2 failures that the new text is to prevent; "
        "add cases for the others",
    }
    judged, asked = llm.requests[-2], llm.requests[-1]
    assert "The assistant may know things that you cannot see" in judged.system
    assert "<analysis>\nToo long.\n\nAsk for one sentence." in asked.last_user_text
    shown = "<message>\nWhat is TLS?\n</message>\n<expected>\nOne sentence.&lt;/expected>\n"
    assert f'<case number="2">\n{shown}' in asked.last_user_text


@pytest.mark.parametrize(
    ("labels", "prompt", "promote", "reason"),
    [
        (["production"], STORED, False, "the request says not to promote"),
        ([], STORED, True, "no version is in production"),
        (["production"], INLINE, True, "so nothing is stored"),
    ],
)
async def test_a_winner_is_promoted_only_over_production_and_if_allowed(
    optimizing: OptimizeJobs, labels: list[str], prompt: JSON, promote: bool, reason: str
) -> None:
    await optimizing.put("support", OLD, labels=labels)
    found = await optimizing.result(prompt=prompt, evaluation={**GATE, "promote": promote})
    assert found["labels"] == (["candidate"] if prompt is STORED else [])
    assert (found["evaluation"]["passed"], found["evaluation"]["promoted"]) == (True, False)
    assert reason in found["evaluation"]["not_promoted_reason"]


@pytest.mark.parametrize("reference", [{}, {"version": 1}])
async def test_a_winner_is_not_promoted_over_a_text_it_was_not_compared_with(
    optimizing: OptimizeJobs, reference: JSON
) -> None:
    await optimizing.put("support", OLD)
    if reference:
        await optimizing.put("support", "Other.", labels=["production"])
    job_id = (await optimizing.submit(prompt={**STORED, **reference}, evaluation=GATE))["id"]
    if not reference:
        await optimizing.put("support", "Other.", labels=["production"])
    [found] = (await optimizing.done(job_id))["result"]["prompts"]
    assert (found["version"], found["labels"]) == (3, ["candidate"])
    assert found["evaluation"]["not_promoted_reason"] == (
        "version 2 is in production, and the new text was compared with version 1"
    )


async def test_two_jobs_with_the_same_text_both_report_its_promotion(
    optimizing: OptimizeJobs,
) -> None:
    await optimizing.put("support", OLD)
    jobs = [await optimizing.submit(prompt=STORED, evaluation=GATE) for _ in range(2)]
    for job in jobs:
        [found] = (await optimizing.done(job["id"]))["result"]["prompts"]
        assert (found["version"], found["labels"]) == (2, ["candidate", "production"])
        evaluation = found["evaluation"]
        assert (evaluation["promoted"], evaluation["not_promoted_reason"]) == (True, None)


@pytest.mark.parametrize("again", [None, "Another."])
async def test_a_prompt_deleted_during_the_job_is_not_created_again(
    optimizing: OptimizeJobs, again: str | None
) -> None:
    await optimizing.put("support", OLD)
    job_id = (await optimizing.submit(prompt=STORED, evaluation=GATE))["id"]
    await optimizing.client.delete("/v1/prompts/support")
    if again:
        await optimizing.put("support", again)
    [found] = (await optimizing.done(job_id))["result"]["prompts"]
    gone = "the prompt was deleted during the job, so nothing was stored"
    assert (found["outcome"], found["text"], found["reason"]) == ("improved", NEW, gone)
    assert (found["version"], found["evaluation"]["promoted"]) == (None, False)
    if again:
        assert (await optimizing.get("support"))["version"] == 1


async def test_each_case_is_tried_on_its_prompts_with_its_variables(
    optimizing: OptimizeJobs, llm: LLMServer
) -> None:
    llm.respond = model(lambda old: f"{old} Better.", chosen=["a", "b", "c"])
    prompts = [{"name": name, "text": f"{name} {{who}}."} for name in "abc"]
    values = {"variables": {"who": "Ana"}}
    about = [{**CASE, **values, "prompt": "a"}, {**CASE, **values, "prompt": "b"}]
    found = await optimizing.results(
        prompts=prompts, evaluation={"cases": [*about, {**about[0], "messages": [["user", "?"]]}]}
    )
    tried = [one["evaluation"] and len(one["evaluation"]["cases"]) for one in found]
    assert tried == [2, 1, None]
    answers = found[0]["evaluation"]["cases"][0]["answers"]
    assert (answers["old"]["text"], answers["new"]["text"]) == ("a Ana.", "a Ana. Better.")


async def test_each_step_asks_the_model_that_the_request_names(
    optimizing: OptimizeJobs, llm: LLMServer
) -> None:
    evaluation = {**GATE, "model": "openai:small", "judge": "openai:large"}
    await optimizing.result(prompt=INLINE, evaluation=evaluation, model="openai:best")
    asked = [request.model for request in llm.requests]
    assert asked == ["best"] * 3 + ["small"] * 2 + ["large"] * 3
