"""The child process of a worker that runs one job alone (`python -m app.worker.isolated_job`).

Standard input carries the task, and ends when the worker does. The worker extends the job's lease,
and kills this process to interrupt the job.
"""

import asyncio
import os
import pickle
import signal
import sys
import threading

import structlog

from app.db.database import ALL_ROOTS
from app.jobs import queue
from app.jobs.executor import COULD_NOT_RUN, ChildTask, Executor
from app.logging import configure_logging
from app.resources import open_resources
from app.usage_counter import record_usage
from app.worker.process import (
    be_first_out_of_memory,
    limit_memory,
    limit_processor_time,
    watching_event_loop,
)

_CONNECTIONS = 4

_logger = structlog.get_logger("memoryd.jobs")


async def _run(task: ChildTask) -> None:
    settings = task.settings.model_copy(update={"database_pool_size": _CONNECTIONS})
    async with (
        watching_event_loop(settings),
        open_resources(settings, warm=False) as resources,
        record_usage(resources.usage, resources.database),
    ):
        limit_memory(settings.job_memory_bytes)
        limit_processor_time(settings.job_timeout_seconds)
        async with resources.database.connection(ALL_ROOTS) as connection:
            job = await queue.find_running(connection, task.job_id, task.attempt)
        if job is not None:
            handlers = task.build_handlers(resources)
            await Executor.build(resources, handlers).execute(job)


def _end_with_parent() -> None:
    while os.read(0, 1 << 10):
        pass
    os._exit(COULD_NOT_RUN)


def main() -> None:
    """Run one job and exit."""
    # These signals are sent to a whole terminal or service.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    task: ChildTask = pickle.load(sys.stdin.buffer)  # noqa: S301  # from the process that started us
    configure_logging(task.settings)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    be_first_out_of_memory()
    try:
        asyncio.run(_run(task))
    except Exception:
        _logger.exception("isolated job could not be run", job=task.job_id)
        sys.exit(COULD_NOT_RUN)


if __name__ == "__main__":
    main()
