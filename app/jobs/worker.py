"""The loop that takes jobs from the queue, keeps them, and hands back what it cannot finish."""

import asyncio
import os
import secrets
import socket
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from app.background import attempt, background, repeat
from app.config import Settings
from app.db.database import ALL_ROOTS, Connection, Database
from app.db.notifier import CANCEL, WORK, Notifier, wait_for
from app.errors import AppError
from app.jobs import queue
from app.jobs.executor import Executor
from app.jobs.isolation import AT_ONCE as ISOLATED_AT_ONCE
from app.jobs.isolation import Isolation
from app.jobs.kind import RunJob
from app.jobs.record import ClaimedJob

LOOK_SECONDS = 1.0
"""How often the queue is looked at without being told of news: delayed jobs come due silently."""

_logger = structlog.get_logger("memoryd.jobs")


@dataclass(eq=False, slots=True)
class _Held:
    """An attempt at a job that this worker makes; `stopped` once it must come to nothing."""

    job: ClaimedJob
    task: asyncio.Task[None] = field(init=False)
    stopped: bool = False

    def stop(self) -> None:
        """Interrupt the attempt."""
        if not self.stopped:
            self.stopped = True
            self.task.cancel()


class JobWorker:
    """Works on up to `concurrency` jobs at once."""

    def __init__(
        self,
        database: Database,
        notifier: Notifier,
        handlers: Mapping[str, RunJob],
        settings: Settings,
        *,
        isolation: Isolation | None = None,
        worker_id: str | None = None,
    ) -> None:
        """Without `isolation`, jobs that should run alone run like others.

        Jobs already running under a given `worker_id` belong to a dead predecessor.
        """
        self.id = worker_id or new_worker_id()
        self._has_predecessor = worker_id is not None
        self._isolation = isolation
        self._database = database
        self._notifier = notifier
        self._executor = Executor(database, handlers, settings)
        self._settings = settings
        self._held: set[_Held] = set()
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Work until cancelled; then finish what is running, or hand it back."""
        await self._take_over()
        seconds = self._settings.job_lease_seconds / 3
        try:
            async with background(repeat("keeping jobs", self._keep, seconds=seconds)):
                try:
                    await self._work()
                finally:
                    await self._drain()
        finally:
            await self._leave()

    async def _work(self) -> None:
        with self._notifier.subscribed(WORK) as self._news:
            while True:
                await attempt("taking jobs", self._take_what_fits)
                await wait_for(self._news, LOOK_SECONDS)

    async def _take_over(self) -> None:
        """Queue a predecessor's jobs, and retry those that wait for a configuration."""
        try:
            async with self._database.transaction(ALL_ROOTS) as connection:
                if self._has_predecessor:
                    await queue.rescue(connection, self._settings, dead_worker=self.id)
                await queue.wake_waiting(connection)
        except AppError as error:  # leases and pauses expire anyway
            _logger.warning("taking over put off", reason=error.detail)

    async def _take_what_fits(self) -> None:
        while len(self._held) < self._settings.job_concurrency:
            job = await self._claimed()
            if job is None:
                return
            held = _Held(job)
            held.task = asyncio.create_task(self._work_on(held))
            self._held.add(held)

    async def _claimed(self) -> ClaimedJob | None:
        async with self._database.transaction(ALL_ROOTS) as connection:
            await queue.lock(connection)
            return await queue.claim(
                connection,
                self.id,
                lease_seconds=self._settings.job_lease_seconds,
                concurrency=self._settings.job_concurrency,
                most_per_root=self._settings.jobs_per_root,
                isolated=sum(held.job.isolated for held in self._held) < ISOLATED_AT_ONCE,
            )

    async def _work_on(self, held: _Held) -> None:
        try:
            await self._attempt(held)
        except AppError as error:  # the lease runs out, and the job is taken up again
            detail = error.detail
            _logger.warning("the end of a job could not be written", job=held.job.id, why=detail)
        except Exception:  # a mistake here is told, and must not end the worker
            _logger.exception("the end of a job could not be written", job=held.job.id)
        finally:
            self._held.discard(held)
            self._news.set()  # there is a place, and perhaps the next job of its lane or root

    async def _attempt(self, held: _Held) -> None:
        async with background(self._watch(held)):
            try:
                if held.job.isolated and self._isolation is not None:
                    await self._executor.execute_isolated(held.job, self._isolation)
                else:
                    await self._executor.execute(held.job)
            except asyncio.CancelledError:
                if not held.stopped:  # draining; what is left is handed back all at once
                    raise
                await self._executor.end_cancelled(held.job)

    async def _watch(self, held: _Held) -> None:
        """Look at a job when there is news for it; a notifier that reconnects wakes all."""
        with self._notifier.subscribed(CANCEL, held.job.id) as news:
            while not held.stopped:
                await news.wait()
                news.clear()
                with suppress(AppError):  # the next heartbeat looks again
                    async with self._database.transaction(ALL_ROOTS) as connection:
                        kept = await self._extend(connection, [held])
                    _stop_others([held], kept)

    async def _keep(self) -> None:
        """Say that this worker lives, keep its jobs, and take up those of workers that do not."""
        held = list(self._held)
        async with self._database.transaction(ALL_ROOTS) as connection:
            await queue.seen(connection, self.id, self._settings.job_concurrency)
            kept = await self._extend(connection, held)
            rescued = await queue.rescue(connection, self._settings)
        _stop_others(held, kept)
        if rescued:
            _logger.warning("jobs of a lost worker taken up", jobs=rescued)

    async def _extend(
        self, connection: Connection, held: Collection[_Held]
    ) -> set[tuple[str, int]]:
        jobs = [one.job for one in held]
        return await queue.extend(connection, jobs, self._settings.job_lease_seconds)

    async def _drain(self) -> None:
        tasks = [held.task for held in self._held]
        if tasks:
            await asyncio.wait(tasks, timeout=self._settings.drain_seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _leave(self) -> None:
        """Hand back what is left, a job whose claim was interrupted too."""
        with suppress(AppError):
            async with self._database.transaction(ALL_ROOTS) as connection:
                await queue.hand_back(connection, self.id)
                await queue.forget(connection, self.id)


def new_worker_id() -> str:
    """Return a unique id."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


def _stop_others(held: Collection[_Held], kept: Collection[tuple[str, int]]) -> None:
    for one in held:
        if (one.job.id, one.job.attempt) not in kept:
            one.stop()
