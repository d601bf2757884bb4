"""A job's usage counts every paid call to a model."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from typing_extensions import override

from app.jobs.kind import JobRun
from app.providers.errors import UnavailableError
from app.providers.llm import Completion, Message, Request, TokenUsage, UnusableReplyError
from tests.support.jobs import Act, Jobs, hang, until

REQUEST = Request("", (Message("user", "What is it?"),))
PAID = TokenUsage(10, 1, 0, 0.5)


class PaidModel:
    """A model whose answers have the given usage; None: it is unavailable."""

    name = "paid:model"

    def __init__(self, *usage: TokenUsage | None) -> None:
        self.usage = list(usage)

    async def complete(self, _request: Request) -> Completion:
        usage = self.usage.pop(0)
        if usage is None:
            raise UnavailableError("The provider is away.")
        return Completion("It is.", (), "end", usage, "model-2")

    async def aclose(self) -> None:
        return


class UnusableModel(PaidModel):
    @override
    async def complete(self, _request: Request) -> Completion:
        raise UnusableReplyError("It babbles.", await super().complete(_request))


async def usage_of(jobs: Jobs, job_id: str) -> dict[str, Any]:
    usage: dict[str, Any] = (await jobs.get(job_id))["usage"]
    return usage


def ask(jobs: Jobs, llm: PaidModel, times: int) -> Act:
    async def act(run: JobRun) -> None:
        for number in range(times):
            request = replace(REQUEST, system=f"Request {number}")
            completion = await run.complete(llm, request, purpose="extract")
            assert completion.text == "It is."
        await jobs.handler.succeed(run)

    return act


async def test_usage_is_the_sum_of_the_calls(jobs: Jobs) -> None:
    llm = PaidModel(TokenUsage(100, 20, 40, 0.25), TokenUsage(300, 2, 0, 0.5))
    jobs.handler.act = ask(jobs, llm, 2)
    row = await jobs.done()
    assert await usage_of(jobs, row["id"]) == {
        "model_calls": 2,
        "input_tokens": 400,
        "output_tokens": 22,
        "cached_tokens": 40,
        "cost_usd": 0.75,
    }
    calls = await jobs.sql("SELECT * FROM model_calls ORDER BY number")
    assert [
        (call["number"], call["attempt"], call["purpose"], call["model"]) for call in calls
    ] == [
        (1, 1, "extract", "model-2"),
        (2, 1, "extract", "model-2"),
    ]
    assert all(call["milliseconds"] >= 0 for call in calls)


async def test_a_job_without_calls_costs_nothing_and_an_unknown_price_is_null(jobs: Jobs) -> None:
    usage = await usage_of(jobs, (await jobs.done())["id"])
    assert usage == dict.fromkeys(usage, 0)
    jobs.handler.act = ask(jobs, PaidModel(PAID, TokenUsage(1, 1, 0, None)), 2)
    usage = await usage_of(jobs, (await jobs.done())["id"])
    assert (usage["model_calls"], usage["cost_usd"]) == (2, None)


async def test_an_unusable_answer_is_counted(jobs: Jobs) -> None:
    async def act(run: JobRun) -> None:
        with pytest.raises(UnusableReplyError):
            await run.complete(UnusableModel(PAID), REQUEST, purpose="extract")
        await jobs.handler.succeed(run)

    jobs.handler.act = act
    usage = await usage_of(jobs, (await jobs.done())["id"])
    assert (usage["model_calls"], usage["input_tokens"], usage["cost_usd"]) == (1, 10, 0.5)


async def test_the_usage_of_failed_attempts_is_counted(jobs: Jobs) -> None:
    jobs.handler.act = ask(jobs, PaidModel(None, PAID, None, PAID), 2)
    row = await jobs.done()
    assert (row["state"], row["attempt"]) == ("succeeded", 3)
    usage = await usage_of(jobs, row["id"])
    assert (usage["model_calls"], usage["input_tokens"], usage["cost_usd"]) == (2, 20, 1.0)


async def test_the_usage_before_a_cancel_is_counted(jobs: Jobs) -> None:
    asked = asyncio.Event()

    async def act(run: JobRun) -> None:
        await run.complete(PaidModel(PAID), REQUEST, purpose="extract")
        asked.set()
        await hang(run)

    jobs.handler.act = act
    job_id = await jobs.submit()
    async with jobs.working():
        await asked.wait()
        await jobs.cancel(job_id)
        await jobs.settled(job_id)
    assert (await usage_of(jobs, job_id))["cost_usd"] == pytest.approx(0.5)


async def test_a_call_of_an_attempt_that_lost_its_job_is_counted(jobs: Jobs) -> None:
    class Thief(PaidModel):
        @override
        async def complete(self, request: Request) -> Completion:
            await jobs.sql("UPDATE jobs SET attempt = attempt + 1")
            return await super().complete(request)

    async def is_paid() -> bool:
        return bool((await usage_of(jobs, job_id))["model_calls"])

    jobs.handler.act = ask(jobs, Thief(PAID), 1)
    job_id = await jobs.submit()
    async with jobs.working():
        await until(is_paid)
    job = await jobs.get(job_id)
    assert (job["usage"]["model_calls"], job["result"]) == (1, None)
