"""A root whose model hangs does not stop the jobs of others."""

import asyncio
import time

import pytest

from app.auth.access import ALL_GRANTED, Access
from app.config import Settings
from app.jobs.kind import JobRun
from app.namespaces import to_root
from app.providers.llm import Completion, LLMPool, Request, TokenUsage
from tests.support.jobs import Jobs

pytestmark = pytest.mark.slow  # each waits for workers

SLOW, OTHER = (Access(name, to_root([name]), ALL_GRANTED) for name in ("slow", "other"))


class Model:
    """Answers, but hangs if the system text says so."""

    name = "fake:model"

    async def complete(self, request: Request) -> Completion:
        if request.system == "hang":
            await asyncio.Event().wait()
        return Completion("Done.", (), "end", TokenUsage(1, 1, 0, None), "model")

    async def aclose(self) -> None:
        """Do nothing."""


async def test_one_root_never_holds_every_slot(jobs: Jobs) -> None:
    """Uses the default limits and one worker; each job makes several calls at once."""
    defaults = Settings(database_url=jobs.resources.settings.database_url)
    llms = LLMPool("fake:model", lambda _: Model(), concurrency=defaults.llm_concurrency)

    async def act(run: JobRun) -> None:
        request = Request("hang" if run.job.access.root == SLOW.root else "", ())
        calls = (run.complete(llms.get(), request, purpose="test") for _ in range(3))
        await asyncio.gather(*calls)
        await jobs.handler.succeed(run)

    jobs.handler.act = act
    for _ in range(20):
        await jobs.submit(["slow", "x"], access=SLOW)
    concurrency = 3
    most = min(defaults.jobs_per_root, concurrency - 1)
    limits = {"jobs_per_root": defaults.jobs_per_root, "job_concurrency": concurrency}
    async with jobs.working(drain_seconds=0.0, **limits):
        await jobs.started(most)
        await asyncio.sleep(0.2)
        assert len(jobs.handler.jobs) == most
        for _ in range(3):
            started = time.monotonic()
            row = await jobs.settled(await jobs.submit(["other", "x"], access=OTHER))
            assert row["state"] == "succeeded"
            assert time.monotonic() - started < 5
