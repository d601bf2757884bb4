"""A root whose model hangs does not stop the jobs of others."""

import asyncio
import time

import pytest

from app.auth.access import ALL_GRANTED, Access
from app.config import Settings
from app.jobs.run import JobRun
from app.namespaces import to_root
from app.providers.llm.base import LLM, Completion, Request, TokenUsage
from app.providers.llm.pool import LLMPool
from app.resources import Resources
from tests.support.jobs import KIND, Acting, enqueue, new_job, settled, until, worker_of, working

pytestmark = pytest.mark.slow  # each waits for workers

HANGING, OTHER = (Access(name, to_root([name]), ALL_GRANTED) for name in ("hanging", "other"))


class Model:
    """Answers, but hangs if the system text says so."""

    name = "fake:model"

    async def complete(self, request: Request) -> Completion:
        if request.system == "hang":
            await asyncio.Event().wait()
        return Completion("Done.", (), "end", TokenUsage(1, 1, 0, None), "model")

    async def aclose(self) -> None:
        """Do nothing."""


def create(_spec: str) -> LLM:
    return Model()


@pytest.mark.parametrize("concurrency", [8, 2])
async def test_one_root_never_holds_every_slot(
    resources: Resources, acting: Acting, concurrency: int
) -> None:
    """Uses the default limits and one worker; each job makes several calls at once."""
    defaults = Settings(database_url=resources.settings.database_url, job_concurrency=concurrency)
    llms = LLMPool("fake:model", create, concurrency=defaults.llm_concurrency)

    async def act(run: JobRun) -> None:
        hangs = run.job.access.root == HANGING.root
        request = Request("hang" if hangs else "", ())
        calls = (run.complete(llms.get(), request, purpose="test") for _ in range(3))
        await asyncio.gather(*calls)
        await acting.succeed(run)

    acting.act = act
    for _ in range(20):
        await enqueue(resources, new_job(["hanging", "x"]), HANGING)
    async with working(
        worker_of(resources, {KIND: acting}, defaults.model_copy(update={"drain_seconds": 0.0}))
    ):
        await until(lambda: has_begun(acting, min(defaults.jobs_per_root, concurrency - 1)))
        await asyncio.sleep(0.2)
        assert len(acting.jobs) == min(defaults.jobs_per_root, concurrency - 1)
        for _ in range(3):
            began = time.monotonic()
            job_id = await enqueue(resources, new_job(["other", "x"]), OTHER)
            row = await settled(resources.database, job_id)
            assert row["state"] == "succeeded"
            assert time.monotonic() - began < 5


async def has_begun(acting: Acting, jobs: int) -> bool:
    return len(acting.jobs) >= jobs
