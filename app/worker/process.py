"""The worker process: `memoryd worker`, or a child of `memoryd serve` or `memoryd mcp`.

It runs jobs, and keeps tables in order: expired items, old jobs, the backfill, texts to embed.

As a child (`python -m app.worker.process ID`) it ends when its standard input does, so it never
outlives the process that started it. Signals that are sent to all processes of a terminal or of a
service are its parent's to answer: a worker that ended first would be started again.
"""

import asyncio
import faulthandler
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import structlog

from app.background import background, repeat
from app.config import Settings
from app.db.database import ALL_ROOTS
from app.db.idempotency import delete_old_answers
from app.errors import AppError, OperatorError
from app.job_kinds import handlers
from app.jobs import queue
from app.jobs.executor import BuildHandlers, Isolation
from app.jobs.worker import JobWorker
from app.logging import configure_logging
from app.resources import Resources, open_resources
from app.store.backlog import EmbeddingBacklog
from app.store.namespace_repository import prune_namespaces
from app.store.reindex import catch_up
from app.store.repository import sweep
from app.usage_counter import record_usage

WALK_SECONDS = 3600.0
"""Pause between walks over whole tables; the first one is at the start."""

BACKLOG_SECONDS = 5.0
"""Pause between two looks at the items that wait for their embedding."""

SHORTEST_WATCH_SECONDS = 10.0
"""An event loop may stall for seconds on a machine that is overloaded or was suspended."""

_OOM_SCORE = "500"
"""When memory runs out, the kernel should kill the worker, not the server or the database."""

_SENT_TO_ALL = (signal.SIGINT, signal.SIGTERM)
_PARENT_GONE = signal.SIGUSR1

_logger = structlog.get_logger("memoryd.worker")


async def run_worker(
    resources: Resources,
    *,
    worker_id: str | None = None,
    build_handlers: BuildHandlers = handlers,
) -> None:
    """Work until canceled; then finish the running jobs, or hand them back."""
    worker = JobWorker.build(
        resources,
        build_handlers(resources),
        isolation=Isolation(resources.settings, build_handlers),
        worker_id=worker_id,
    )
    upkeep = Upkeep(resources)
    backlog = EmbeddingBacklog.build(resources)
    seconds = resources.settings.sweep_interval_seconds
    async with (
        background(repeat("upkeep", upkeep.run, seconds=seconds)),
        background(repeat("embedding", backlog.run, seconds=BACKLOG_SECONDS)),
    ):
        await worker.run()


class Upkeep:
    """Removes expired items at every run, and now and then walks over whole tables."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._next_walk = 0.0

    async def run(self) -> None:
        """Do what is due."""
        resources = self._resources
        if removed := await sweep(resources.database, resources.clock.now()):
            _logger.info("expired items removed", items=removed)
        if time.monotonic() >= self._next_walk:
            await _walk_tables(resources)
            self._next_walk = time.monotonic() + WALK_SECONDS


async def _walk_tables(resources: Resources) -> None:
    await prune_namespaces(resources.database)
    if indexed := await catch_up(resources):
        _logger.info("items of another configuration indexed", items=indexed)
    async with resources.database.connection(ALL_ROOTS) as connection:
        while await queue.delete_old(connection, resources.settings.job_retention_days):
            pass
        await delete_old_answers(connection)


def limit_memory(additional_bytes: int) -> None:
    """Limit this process to its present memory plus `additional_bytes`.

    An allocation beyond that raises MemoryError. Has no effect on systems other than Linux.
    """
    with suppress(FileNotFoundError):  # no /proc
        pages = int(Path("/proc/self/statm").read_text().split()[5])
        _lower(resource.RLIMIT_DATA, pages * resource.getpagesize() + additional_bytes)


def limit_processor_time(additional_seconds: float) -> None:
    """Have the kernel end this process after `additional_seconds` more of processor time."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _lower(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime + additional_seconds) + 1)


def _lower(kind: int, soft: int) -> None:
    hard = resource.getrlimit(kind)[1]
    if hard != resource.RLIM_INFINITY:
        soft = min(soft, hard)
    resource.setrlimit(kind, (soft, hard))


async def run_worker_process(
    settings: Settings,
    *,
    worker_id: str | None = None,
    build_handlers: BuildHandlers = handlers,
    stop_signals: Collection[signal.Signals] = _SENT_TO_ALL,
) -> None:
    """Do jobs until a stop signal, or until the event loop hangs and the process is ended.

    A process that replaces a dead one has the same `worker_id`.
    """
    be_first_out_of_memory()
    async with (
        watching_event_loop(settings),
        # The model is loaded with the first job that embeds: many workers never need it.
        open_resources(settings, warm=False) as resources,
        record_usage(resources.usage, resources.database),
    ):
        limit_memory(settings.job_memory_bytes)
        working = asyncio.create_task(
            run_worker(resources, worker_id=worker_id, build_handlers=build_handlers)
        )
        stop = _once(working.cancel)  # a second signal must not cut off the drain
        for number in stop_signals:
            asyncio.get_running_loop().add_signal_handler(number, stop)
        with suppress(asyncio.CancelledError):
            await working


def be_first_out_of_memory() -> None:
    """Have the kernel kill this process first when memory runs out."""
    with suppress(OSError):  # not Linux
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)


@asynccontextmanager
async def watching_event_loop(settings: Settings) -> AsyncIterator[None]:
    """End the process, with a traceback, if the event loop hangs for longer than a lease.

    The timer is a thread outside Python, so it works wherever the interpreter is stuck.
    """
    async with background(_watch_event_loop(settings)):
        yield


async def _watch_event_loop(settings: Settings) -> None:
    seconds = max(settings.job_lease_seconds, SHORTEST_WATCH_SECONDS)
    try:
        while True:
            faulthandler.dump_traceback_later(seconds, exit=True)
            await asyncio.sleep(seconds / 8)
    finally:
        faulthandler.cancel_dump_traceback_later()


def _once(function: Callable[[], object]) -> Callable[[], None]:
    called = False

    def call() -> None:
        nonlocal called
        if not called:
            called = True
            function()

    return call


def _end_with_parent() -> None:
    """Stop when standard input ends: the parent is gone, or asks for it."""
    while os.read(0, 1 << 10):
        pass
    os.kill(os.getpid(), _PARENT_GONE)


def main() -> None:
    """Run the worker as a child process."""
    for number in (*_SENT_TO_ALL, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    settings = Settings()
    configure_logging(settings)
    try:
        asyncio.run(
            run_worker_process(settings, worker_id=sys.argv[1], stop_signals=[_PARENT_GONE])
        )
    except (OperatorError, AppError) as error:  # the supervisor starts it again
        sys.exit(str(error))


if __name__ == "__main__":
    main()
