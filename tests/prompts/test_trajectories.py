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
        ({"score": 1}, Feedback(score=1.0)),
        ({"comment": "No.", "edited_answer": "Yes."}, Feedback(None, "No.", "Yes.")),
        ({"score": 0.5, "mood": ["sad"]}, Feedback(0.5, more={"mood": ["sad"]})),
    ],
)
def test_a_plan_keeps_all_members_of_feedback(sent: Any, feedback: Feedback | None) -> None:
    given = TrajectoryInput.model_validate({**TALK, "feedback": sent}).feedback
    planned = PlannedTrajectory(messages=[], thread_id=None, first=0, last=0, feedback=given)
    assert (
        PlannedTrajectory.model_validate_json(planned.model_dump_json()).to_feedback() == feedback
    )


@pytest.mark.parametrize(
    ("trajectory", "problem"),
    [
        ([TALK["messages"], "Too long."], "is a list; send an object such as"),
        ({}, "needs either messages or thread_id"),
        ({"messages": [["user", "Hi"]], "thread_id": "t"}, "needs either messages or thread_id"),
        ({"messages": []}, "at least 1 item"),
        ({"messages": [["user", "Hi"]], "last": 3}, "has positions, which are a thread's"),
        ({"thread_id": "t", "first": 3, "last": 2}, "has a last position before the first"),
        ({**TALK, "feedback": "Good"}, "valid dictionary"),
        ({**TALK, "feedback": {"score": "good"}}, "valid number"),
        ({**TALK, "feedback": {"score": True}}, "valid number"),
        ({**TALK, "feedback": {"note": "\x00"}}, "U+0000"),
        ({**TALK, "feedback": {"comment": "a" * 50_001}}, "at most 50000 characters"),
        ({**TALK, "score": 1}, "Extra inputs"),
        ({"messages": CASE["messages"], "expected": "x"}, "Extra inputs"),
    ],
)
def test_trajectories_are_read_strictly(trajectory: Any, problem: str) -> None:
    with pytest.raises(ValidationError) as caught:
        OptimizePrompt.model_validate(body(trajectory))
    [error] = caught.value.errors()
    assert problem in error["msg"]
    assert error["loc"][:2] == ("trajectories", 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("positions", "read"),
    [
        ({}, "ABC"),
        ({"first": 1}, "BC"),
        ({"last": 1}, "AB"),
        ({"first": 2, "last": 900}, "C"),
    ],
)
async def test_a_job_reads_the_messages_that_a_thread_had_when_it_was_submitted(
    optimizing: OptimizeJobs, threads: Threads, llm: LLMServer, positions: JSON, read: str
) -> None:
    await threads.append("t", *(f"Message {name}" for name in "ABC"))
    sent = {"thread_id": "t", "feedback": {"comment": "Too long."}, **positions}
    job_id = (await optimizing.submit(**body(sent)))["id"]
    await threads.append("t", "Message D")
    assert (await optimizing.done(job_id))["state"] == "succeeded"
    shown = llm.requests[0].last_user_text
    assert "".join(name for name in "ABCD" if f"Message {name}" in shown) == read
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
