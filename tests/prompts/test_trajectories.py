from typing import Any

import pytest
from pydantic import ValidationError

from app.prompts.job_schemas import FeedbackInput, OptimizePrompt, TrajectoryInput
from app.prompts.optimize.render import MAX_CHARACTERS
from app.prompts.optimize.types import Feedback
from app.prompts.plan import PlannedTrajectory
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


def as_feedback(feedback: Any) -> Feedback | None:
    given = TrajectoryInput.model_validate({**TALK, "feedback": feedback})
    planned = PlannedTrajectory(
        messages=[], thread_id=None, first=0, last=0, feedback=given.feedback
    )
    return PlannedTrajectory.model_validate_json(planned.model_dump_json()).to_feedback()


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
def test_feedback_is_an_object_with_any_members(sent: Any, feedback: Feedback | None) -> None:
    assert as_feedback(sent) == feedback


@pytest.mark.parametrize(
    ("trajectory", "problem"),
    [
        ([TALK["messages"], "Too long."], "is a list; send an object such as"),
        (TALK["messages"], "is a list; send an object such as"),
        ({}, "needs either messages or thread_id"),
        ({"messages": [["user", "Hi"]], "thread_id": "t"}, "needs either messages or thread_id"),
        ({"messages": []}, "at least 1 item"),
        ({"messages": [["user", "Hi"]], "last": 3}, "has positions, which are a thread's"),
        ({"thread_id": "t", "first": 3, "last": 2}, "has a last position before the first"),
        ({**TALK, "feedback": "Good"}, "valid dictionary"),
        ({**TALK, "feedback": {"score": "good"}}, "valid number"),
        ({**TALK, "feedback": {"score": True}}, "valid number"),
        ({**TALK, "feedback": {"note": "\x00"}}, "U+0000"),
        ({**TALK, "score": 1}, "Extra inputs"),
    ],
)
def test_trajectories_are_read_strictly(trajectory: Any, problem: str) -> None:
    with pytest.raises(ValidationError) as caught:
        OptimizePrompt.model_validate(body(trajectory))
    [error] = caught.value.errors()
    assert problem in error["msg"]
    assert error["loc"][:2] == ("trajectories", 0)


def test_feedback_that_may_be_long_is_bounded() -> None:
    with pytest.raises(ValidationError):
        FeedbackInput.model_validate({"comment": "a" * 50_001})


@pytest.mark.slow
async def test_the_messages_of_a_thread_are_read_when_the_job_begins(
    optimizing: OptimizeJobs, threads: Threads, llm: LLMServer
) -> None:
    await threads.append("t", "Zero", "One", "Two")
    sent = {"thread_id": "t", "feedback": {"comment": "Too long."}}
    job_id = (await optimizing.submit(**body(sent)))["id"]
    await threads.append("t", "Three")
    job = await optimizing.done(job_id)
    assert job["state"] == "succeeded"
    shown = llm.requests[0].last_user_text
    assert all(text in shown for text in ("Zero", "One", "Two", "Too long."))
    assert "Three" not in shown


@pytest.mark.slow
@pytest.mark.parametrize(
    ("positions", "read"),
    [
        ({"first": 1}, "BC"),
        ({"last": 1}, "AB"),
        ({"first": 1, "last": 1}, "B"),
        ({"first": 2, "last": 900}, "C"),
    ],
)
async def test_a_part_of_a_thread_is_read(
    optimizing: OptimizeJobs, threads: Threads, llm: LLMServer, positions: JSON, read: str
) -> None:
    await threads.append("t", *(f"Message {name}" for name in "ABC"))
    await optimizing.result(**body({"thread_id": "t", **positions}))
    shown = llm.requests[0].last_user_text
    assert "".join(name for name in "ABC" if f"Message {name}" in shown) == read


@pytest.mark.slow
async def test_a_thread_that_is_not_there_is_not_found(optimizing: OptimizeJobs) -> None:
    problem = await optimizing.submit(status=404, **body(TALK, {"thread_id": "none"}))
    assert problem["code"] == "thread_not_found"
    assert problem["detail"].startswith("trajectories[1]: ")


@pytest.mark.slow
async def test_a_thread_without_messages_there_is_refused(
    optimizing: OptimizeJobs, threads: Threads
) -> None:
    await threads.append("t", "Zero")
    problem = await optimizing.submit(status=422, **body({"thread_id": "t", "first": 5}))
    assert problem["errors"][0]["field"] == "trajectories[0]"


@pytest.mark.slow
async def test_a_message_that_cannot_be_read_is_named(optimizing: OptimizeJobs) -> None:
    wrong = {"messages": [["user", "Hi"], ["robot", "Beep"]]}
    problem = await optimizing.submit(status=422, **body(TALK, wrong))
    assert problem["code"] == "invalid_message"
    assert problem["errors"][0]["field"] == "trajectories[1].messages[1].role"


@pytest.mark.slow
async def test_what_no_model_could_read_is_refused(
    optimizing: OptimizeJobs, threads: Threads
) -> None:
    half: JSON = {"messages": [["user", "a" * 60_000]] * (MAX_CHARACTERS // 120_000 + 1)}
    problem = await optimizing.submit(status=422, **body(half, half))
    assert problem["errors"][0]["field"] == "trajectories"
    await threads.append("t", *(["a" * 60_000] * 7))
    problem = await optimizing.submit(status=422, **body({"thread_id": "t"}))
    assert problem["errors"][0]["field"] == "trajectories"


@pytest.mark.slow
async def test_a_thread_that_is_too_long_has_to_be_sent_in_parts(
    optimizing: OptimizeJobs, threads: Threads
) -> None:
    for _ in range(2):
        await threads.append("t", *map(str, range(1_001)))
    problem = await optimizing.submit(status=422, **body({"thread_id": "t"}))
    assert "2,002 messages; send positions (first, last)" in problem["detail"]
    await optimizing.submit(**body({"thread_id": "t", "first": 2}))


@pytest.mark.slow
async def test_a_thread_that_went_meanwhile_fails_the_job(
    optimizing: OptimizeJobs, threads: Threads
) -> None:
    await threads.append("t", "Zero")
    job_id = (await optimizing.submit(**body({"thread_id": "t"})))["id"]
    await threads.delete("t")
    job = await optimizing.done(job_id)
    assert (job["state"], job["error"]["code"]) == ("failed", "thread_not_found")


def test_cases_are_not_trajectories() -> None:
    with pytest.raises(ValidationError):
        OptimizePrompt.model_validate(body(CASE))
