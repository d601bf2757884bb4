"""A real worker process that its jobs of the kind `test` may kill: `python -m … ID`."""

import asyncio
import importlib
import os
import sys
from collections.abc import Mapping

from app.config import Settings
from app.jobs.kind import JobRun, RunJob
from app.logging import configure_logging
from app.resources import Resources
from app.worker import process
from app.worker.process import run_worker_process

process.SHORTEST_WATCH_SECONDS = 1.5


class Dangerous:
    """Does what the request says, after letting its neighbors start."""

    def __init__(self, resources: Resources) -> None:
        self._database = resources.database

    async def run(self, run: JobRun) -> None:
        act = run.job.request["act"]
        await asyncio.sleep(0.3)
        if act == "exit":
            os._exit(7)
        if act == "spin":
            while True:
                pass
        if act == "allocate":
            taken = []
            while True:
                taken.append(bytearray(10_000_000))
        if not run.job.isolated:
            await asyncio.sleep(3)
        async with self._database.transaction(run.job.access.root) as connection:
            await run.finish(connection, {"isolated": run.job.isolated})


def build_handlers(resources: Resources) -> Mapping[str, RunJob]:
    return {"test": Dangerous(resources).run}


def main() -> None:
    settings = Settings()
    configure_logging(settings)
    asyncio.run(run_worker_process(settings, worker_id=sys.argv[1], build_handlers=build_handlers))


if __name__ == "__main__":
    # Not as `__main__`: a child finds the handlers by the name of their module.
    importlib.import_module("tests.support.dangerous_worker").main()
