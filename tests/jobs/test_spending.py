import asyncio
from typing import Any

import httpx2
import pytest
from typing_extensions import override

from app.jobs.run import JobRun
from app.providers.errors import UnavailableError
from app.providers.llm.base import Completion, Message, Request, TokenUsage, UnusableReplyError
from app.resources import Resources
from tests.support.jobs import (
    KIND,
    Acting,
    enqueue,
    hang,
    run_jobs,
    settled,
    until,
    worker_of,
    working,
)

REQUEST = Request("", (Message("user", "What is it?"),))


class Paid:
    """A model that answers with what it was told to cost; None: it is away."""

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


async def usage_of(client: httpx2.AsyncClient, job_id: str) -> dict[str, Any]:
    usage: dict[str, Any] = (await client.get(f"/v1/jobs/{job_id}")).json()["usage"]
    return usage


def asks(acting: Acting, llm: Paid, times: int) -> Any:
    async def act(run: JobRun) -> None:
        for _ in range(times):
            completion = await run.complete(llm, REQUEST, purpose="extract")
            assert completion.text == "It is."
        await acting.succeed(run)

    return act


class Babbling:
    """A model that charges for an unusable answer."""

    name = "paid:model"

    async def complete(self, _request: Request) -> Completion:
        paid = Completion("", (), "unusable", TokenUsage(100, 20, 0, 0.25), "model-2")
        raise UnusableReplyError("It babbles.", paid)

    async def aclose(self) -> None:
        return


async def test_an_unusable_answer_was_paid_for(
    client: httpx2.AsyncClient, resources: Resources, acting: Acting
) -> None:
    async def act(run: JobRun) -> None:
        with pytest.raises(UnusableReplyError):
            await run.complete(Babbling(), REQUEST, purpose="extract")
        await acting.succeed(run)

    acting.act = act
    job_id = await enqueue(resources)
    await run_jobs(resources, {KIND: acting})
    usage = await usage_of(client, job_id)
    assert (usage["model_calls"], usage["input_tokens"], usage["cost_usd"]) == (1, 100, 0.25)


async def test_a_job_says_what_its_calls_took(
    client: httpx2.AsyncClient, resources: Resources, acting: Acting
) -> None:
    llm = Paid(TokenUsage(100, 20, 40, 0.25), TokenUsage(300, 2, 0, 0.5))
    acting.act = asks(acting, llm, 2)
    job_id = await enqueue(resources)
    await run_jobs(resources, {KIND: acting})
    assert await usage_of(client, job_id) == {
        "model_calls": 2,
        "input_tokens": 400,
        "output_tokens": 22,
        "cached_tokens": 40,
        "cost_usd": 0.75,
    }
    async with resources.database.connection("") as connection:
        rows = await connection.fetch("SELECT * FROM model_calls ORDER BY number")
    assert [(row["number"], row["attempt"], row["purpose"], row["model"]) for row in rows] == [
        (1, 1, "extract", "model-2"),
        (2, 1, "extract", "model-2"),
    ]
    assert all(row["milliseconds"] >= 0 for row in rows)


async def test_a_price_that_is_not_known_makes_the_sum_unknown(
    client: httpx2.AsyncClient, resources: Resources, acting: Acting
) -> None:
    llm = Paid(TokenUsage(1, 1, 0, 0.25), TokenUsage(1, 1, 0, None))
    acting.act = asks(acting, llm, 2)
    job_id = await enqueue(resources)
    await run_jobs(resources, {KIND: acting})
    usage = await usage_of(client, job_id)
    assert (usage["model_calls"], usage["cost_usd"]) == (2, None)


async def test_a_job_that_asked_no_model_cost_nothing(
    client: httpx2.AsyncClient, resources: Resources, acting: Acting
) -> None:
    job_id = await enqueue(resources)
    await run_jobs(resources, {KIND: acting})
    usage = await usage_of(client, job_id)
    assert usage == dict.fromkeys(usage, 0)


async def test_what_failed_attempts_spent_is_counted_too(
    client: httpx2.AsyncClient, resources: Resources, acting: Acting
) -> None:
    paid = TokenUsage(10, 1, 0, 0.5)
    llm = Paid(paid, None, paid, None, paid, paid)
    acting.act = asks(acting, llm, 2)
    job_id = await enqueue(resources)
    async with working(worker_of(resources, {KIND: acting})):
        row = await settled(resources.database, job_id)
    assert (row["state"], row["attempt"]) == ("succeeded", 3)
    assert await usage_of(client, job_id) == {
        "model_calls": 4,
        "input_tokens": 40,
        "output_tokens": 4,
        "cached_tokens": 0,
        "cost_usd": 2.0,
    }


async def test_what_was_spent_before_a_cancel_is_counted(
    client: httpx2.AsyncClient, resources: Resources, acting: Acting
) -> None:
    asked = asyncio.Event()

    async def act(run: JobRun) -> None:
        await run.complete(llm, REQUEST, purpose="extract")
        asked.set()
        await hang(run)

    llm = Paid(TokenUsage(10, 1, 0, 0.5))
    acting.act = act
    job_id = await enqueue(resources)
    async with working(worker_of(resources, {KIND: acting})):
        await asked.wait()
        await client.post(f"/v1/jobs/{job_id}/cancel")
        await settled(resources.database, job_id)
    assert (await usage_of(client, job_id))["cost_usd"] == pytest.approx(0.5)


async def test_a_paid_call_is_kept_though_the_job_was_lost_meanwhile(
    client: httpx2.AsyncClient, resources: Resources
) -> None:
    class Stolen(Paid):
        @override
        async def complete(self, request: Request) -> Completion:
            async with resources.database.connection("") as connection:
                await connection.execute("UPDATE jobs SET attempt = attempt + 1")
            return await super().complete(request)

    llm = Stolen(TokenUsage(10, 1, 0, 0.5))
    acting = Acting(resources.database)
    acting.act = asks(acting, llm, 1)
    job_id = await enqueue(resources)
    async with working(worker_of(resources, {KIND: acting})):
        await until(lambda: paid_for(client, job_id))
    job = (await client.get(f"/v1/jobs/{job_id}")).json()
    assert (job["usage"]["model_calls"], job["result"]) == (1, None)


async def paid_for(client: httpx2.AsyncClient, job_id: str) -> bool:
    return bool((await usage_of(client, job_id))["model_calls"])
