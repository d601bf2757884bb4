"""Replies of models are kept with a job until it ends."""

import asyncio

import pytest

from app.conversations.dialogue import NoAnswerError
from app.jobs import reply_repository
from app.jobs.kind import JobRun
from app.providers.errors import UnavailableError
from app.providers.llm import Completion, Message, Request, TokenUsage, ToolCall, Verbatim
from tests.support.jobs import Jobs, hang

CALL = ToolCall("c1", "insert_memory", {"content": {"content": "half \ud83d \x00"}}, "{…}")
REPLY = Completion(
    "Hm.", (CALL,), "tools", TokenUsage(10, 2, 1, 0.5), "m-2", Verbatim("m", [{"type": "thinking"}])
)


class CountedModel:
    """A model that always gives the same reply, and counts how often it is asked."""

    name = "counted:model"

    def __init__(self, reply: Completion = REPLY) -> None:
        self.reply = reply
        self.asked = 0

    async def complete(self, _request: Request) -> Completion:
        self.asked += 1
        return self.reply

    async def aclose(self) -> None:
        return


class OtherModel(CountedModel):
    name = "other:model"


def question(text: str) -> Request:
    return Request("", (Message("user", text, verbatim=Verbatim("m", {"a": 1})),))


async def kept(jobs: Jobs) -> int:
    return int((await jobs.sql("SELECT count(*) AS n FROM job_replies"))[0]["n"])


async def test_a_later_attempt_gets_the_reply_as_it_was(jobs: Jobs) -> None:
    model, other = CountedModel(), OtherModel()
    seen: list[Completion] = []

    async def act(run: JobRun) -> None:
        seen.append(await run.complete(model, question("Who?"), purpose="extract"))
        if run.job.attempt == 1:
            raise UnavailableError("The database of a friend is away.")
        await run.complete(model, question("What?"), purpose="extract")
        await run.complete(other, question("Who?"), purpose="extract")
        assert await kept(jobs) == 3
        await jobs.handler.succeed(run)

    jobs.handler.act = act
    row = await jobs.done()
    assert (row["state"], row["attempt"]) == ("succeeded", 2)
    assert seen[0] == seen[1] == REPLY
    assert seen[1].verbatim == REPLY.verbatim
    assert (model.asked, other.asked, await kept(jobs)) == (2, 1, 0)
    assert (await jobs.get(row["id"]))["usage"]["model_calls"] == 3


async def test_a_reply_that_could_not_be_used_is_asked_for_again(jobs: Jobs) -> None:
    model = CountedModel()

    async def act(run: JobRun) -> None:
        await run.complete(model, question("Good?"), purpose="extract")
        bad = await run.complete(model, question("Bad?"), purpose="extract")
        if run.job.attempt == 1:
            raise NoAnswerError("it said nothing", [bad])
        await jobs.handler.succeed(run)

    jobs.handler.act = act
    assert (await jobs.done())["attempt"] == 2
    assert model.asked == 3


@pytest.mark.parametrize("ending", ["failed", "cancelled"])
async def test_nothing_is_kept_after_the_end(jobs: Jobs, ending: str) -> None:
    asked = asyncio.Event()

    async def act(run: JobRun) -> None:
        await run.complete(CountedModel(), question("Who?"), purpose="extract")
        asked.set()
        if ending == "failed":
            raise UnavailableError("away")
        await hang(run)

    jobs.handler.act = act
    job_id = await jobs.submit()
    async with jobs.working():
        await asked.wait()
        if ending == "cancelled":
            await jobs.cancel(job_id)
        assert (await jobs.settled(job_id))["state"] == ending
    assert await kept(jobs) == 0


async def test_the_replies_of_a_job_are_bounded(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reply_repository, "MAX_BYTES", 1_500)

    async def act(run: JobRun) -> None:
        for number in range(9):
            await run.complete(CountedModel(), question(f"{number}?"), purpose="extract")
        assert 1 < await kept(jobs) < 9
        await jobs.handler.succeed(run)

    jobs.handler.act = act
    assert (await jobs.done())["state"] == "succeeded"
