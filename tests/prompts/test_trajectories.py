import re
from typing import Any

import pytest
from pydantic import ValidationError

from app.prompts.job_schemas import OptimizePrompt, TrajectoryInput
from app.prompts.optimizer_requests import MAX_CHARACTERS
from app.prompts.plan import PlannedTrajectory
from app.prompts.types import Feedback
from tests.prompts.optimize_jobs import CASE, JSON, TALK, OptimizeJobs, model
from tests.support.llm_server import LLMServer
from tests.support.threads import Threads

INLINE: JSON = {"name": "support", "text": "Answer."}


@pytest.fixture
def threads(optimizing: OptimizeJobs, llm: LLMServer) -> Threads:
    llm.respond = model("Answer in one sentence.")
    return Threads(optimizing.client)


def body(*trajectories: Any) -> JSON:
    return {"prompt": INLINE, "trajectories": list(trajectories)}


@pytest.mark.parametrize(
    ("sent", "feedback"),
    [
        (None, None),
        ({}, Feedback()),
        ({"score": 1, "comment": "No.", "edited_answer": "Yes."}, Feedback(1.0, "No.", "Yes.")),
        ({"score": 0.5, "mood": ["sad"]}, Feedback(0.5, more={"mood": ["sad"]})),
    ],
)
def test_a_plan_keeps_all_members_of_feedback(sent: Any, feedback: Feedback | None) -> None:
    given = TrajectoryInput.model_validate({**TALK, "feedback": sent}).feedback
    planned = PlannedTrajectory(messages=[], thread_id=None, first=0, last=0, feedback=given)
    stored = planned.model_dump_json()
    assert PlannedTrajectory.model_validate_json(stored).to_feedback() == feedback


WRONG: list[Any] = [
    [TALK["messages"], "Too long."],
    {},
    {"messages": [["user", "Hi"]], "thread_id": "t"},
    {"messages": []},
    {"messages": [["user", "Hi"]], "last": 3},
    {"thread_id": "t", "first": 3, "last": 2},
    {**TALK, "feedback": "Good"},
    {**TALK, "feedback": {"score": True}},
    {**TALK, "feedback": {"note": "\x00"}},
    {**TALK, "feedback": {"comment": "a" * 50_001}},
    {"messages": CASE["messages"], "expected": "x"},
]


def test_trajectories_are_read_strictly() -> None:
    for trajectory in WRONG:
        with pytest.raises(ValidationError) as caught:
            OptimizePrompt.model_validate(body(trajectory))
        [error] = caught.value.errors()
        assert error["loc"][:2] == ("trajectories", 0)


@pytest.mark.slow
async def test_a_job_reads_the_messages_that_a_thread_had_when_it_was_submitted(
    optimizing: OptimizeJobs, threads: Threads, llm: LLMServer
) -> None:
    await threads.append("t", *(f"Message {name}" for name in "ABCD"))
    trajectories: list[JSON] = [
        {"thread_id": "t", "feedback": {"comment": "Too long."}},
        {"thread_id": "t", "first": 1, "last": 2},
        {"thread_id": "t", "first": 3, "last": 900},
    ]
    job_id = (await optimizing.submit(**body(*trajectories)))["id"]
    await threads.append("t", "Message E")
    assert (await optimizing.done(job_id))["state"] == "succeeded"
    shown = llm.requests[0].last_user_text
    assert re.findall("Message ([A-Z])", shown) == [*"ABCD", *"BC", "D"]
    assert "Too long." in shown


@pytest.mark.slow
async def test_unreadable_trajectories_are_refused_by_name(
    optimizing: OptimizeJobs, threads: Threads
) -> None:
    await threads.append("t", "Zero")
    await threads.append("long", *(["a" * 60_000] * 7))
    half: JSON = {"messages": [["user", "a" * 60_000]] * (MAX_CHARACTERS // 120_000 + 1)}
    wrong = {"messages": [["user", "Hi"], ["robot", "Beep"]]}
    for trajectories, field in (
        ([{"thread_id": "t", "first": 5}], "trajectories[0]"),
        ([TALK, wrong], "trajectories[1].messages[1].role"),
        ([half, half], "trajectories"),
        ([{"thread_id": "long"}], "trajectories"),
    ):
        problem = await optimizing.submit(status=422, **body(*trajectories))
        assert [error["field"] for error in problem["errors"]] == [field]


@pytest.mark.slow
async def test_a_thread_that_is_too_long_is_sent_in_parts(
    optimizing: OptimizeJobs, threads: Threads
) -> None:
    for _ in range(2):
        await threads.append("t", *map(str, range(1_001)))
    problem = await optimizing.submit(status=422, **body({"thread_id": "t"}))
    assert "2,002 messages; send positions (first, last)" in problem["detail"]
    await optimizing.submit(**body({"thread_id": "t", "first": 2}))


@pytest.mark.slow
async def test_a_missing_thread_is_named_and_a_deleted_one_fails_the_job(
    optimizing: OptimizeJobs, threads: Threads
) -> None:
    problem = await optimizing.submit(status=404, **body(TALK, {"thread_id": "none"}))
    assert problem["code"] == "thread_not_found"
    assert problem["detail"].startswith("trajectories[1]: ")
    await threads.append("t", "Zero")
    job_id = (await optimizing.submit(**body({"thread_id": "t"})))["id"]
    await threads.delete("t")
    job = await optimizing.done(job_id)
    assert (job["state"], job["error"]["code"]) == ("failed", "thread_not_found")
