"""The worker process: `memoryd worker`, or a child of `memoryd serve` or `memoryd mcp`.

As a child (`python -m app.worker.process ID`) it ends when its standard input does, so it never
outlives the process that started it. Signals that are sent to all processes of a terminal or of a
service are its parent's to answer: a worker that ended first would be started again.
"""

import asyncio
import faulthandler
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from app.background import background
from app.config import Settings
from app.errors import AppError, OperatorError
from app.job_kinds import handlers
from app.jobs.isolation import BuildHandlers
from app.logging import configure_logging
from app.resources import open_resources
from app.usage_counter import record_usage
from app.worker.loops import run_worker
from app.worker.resource_limits import limit_memory

SHORTEST_WATCH_SECONDS = 10.0
"""An event loop may stall for seconds on a machine that is overloaded or was suspended."""

_OOM_SCORE = "500"
"""When memory runs out, the kernel should kill the worker, not the server or the database."""

_SENT_TO_ALL = (signal.SIGINT, signal.SIGTERM)
_PARENT_GONE = signal.SIGUSR1


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
