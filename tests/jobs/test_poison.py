"""Jobs that kill a process they share with others, in real processes."""

import json
import sys
from pathlib import Path

import pytest
from asyncpg import Record

from app.resources import Resources
from app.supervisor import ChildProcess, Supervisor
from tests.support.jobs import enqueue, new_job, settled

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def worker_on(resources: Resources) -> ChildProcess:
    """Return a worker process like that of `memoryd serve`."""
    return ChildProcess(
        "worker",
        [sys.executable, "-m", "tests.support.dangerous_worker", "worker-1"],
        environment={
            "PYTHONPATH": str(ROOT),
            "MEMORYD_DATABASE_URL": str(resources.settings.database_url),
            "MEMORYD_EMBEDDING": "fake:hashed",
            "MEMORYD_JOB_LEASE_SECONDS": "1.5",
            "MEMORYD_JOB_MEMORY_BYTES": str(100 << 20),
        },
        stop_seconds=10,
    )


async def done_beside(resources: Resources, act: str) -> tuple[Record, Record]:
    """Do a dangerous job and its neighbor; return how they ended."""
    poison = await enqueue(resources, new_job(request={"act": act}))
    innocent = await enqueue(resources, new_job(request={"act": "finish"}))
    with Supervisor(worker_on(resources), first_pause=0.05):
        return (
            await settled(resources.database, poison, 60),
            await settled(resources.database, innocent, 60),
        )


@pytest.mark.parametrize(
    ("act", "how"),
    [("exit", "exit status 7"), ("spin", "exit status 1"), ("allocate", "104857600 bytes")],
)
async def test_a_job_that_ends_its_process_fails_alone(
    resources: Resources, act: str, how: str
) -> None:
    poison, innocent = await done_beside(resources, act)
    assert (poison["state"], poison["attempt"]) == ("failed", 2)
    error = json.loads(poison["error"])
    assert error["code"] == "process_died"
    assert how in error["detail"]
    assert innocent["state"] == "succeeded"
    if act != "allocate":  # that ends a process of its own alone
        assert json.loads(innocent["result"]) == {"isolated": True}, "it was in the dead process"
        assert innocent["max_attempts"] - innocent["attempt"] == 4, "one attempt counts, the last"
