"""The loop that claims jobs from the queue, runs them, and releases those it cannot finish."""

import asyncio
import os
import secrets
import socket
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

import structlog

from app.background import attempt, background, repeat
from app.config import Settings
from app.db.database import ALL_ROOTS, Connection, Database
from app.db.notifier import CANCEL, WORK, Notifier, wait_for
from app.errors import AppError
from app.jobs import queue
from app.jobs.executor import MAX_CHILDREN, Executor, Isolation
from app.jobs.kind import RunJob
from app.jobs.queue import RetryPolicy
from app.jobs.record import ClaimedJob
from app.resources import Resources

POLL_SECONDS = 1.0
"""Time after which the queue is read without a notification: delayed jobs send none."""

_logger = structlog.get_logger("memoryd.jobs")


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """Limits of one worker: its jobs at a time, and how long it keeps, drains, and retries them."""

    concurrency: int
    max_per_root: int
    lease_seconds: float
    drain_seconds: float
    retries: RetryPolicy

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the configured limits."""
        return cls(
            settings.job_concurrency,
            settings.jobs_per_root,
            settings.job_lease_seconds,
            settings.drain_seconds,
            RetryPolicy.of(settings),
        )


@dataclass(eq=False, slots=True)
class _Attempt:
    """An attempt at a job by this worker; `interrupted` once it must have no effect."""

    job: ClaimedJob
    task: asyncio.Task[None] = field(init=False)
    interrupted: bool = False

    def interrupt(self) -> None:
        """Cancel the attempt."""
        if not self.interrupted:
            self.interrupted = True
            self.task.cancel()


class JobWorker:
    """Runs up to `concurrency` jobs at a time."""

    def __init__(
        self,
        database: Database,
        notifier: Notifier,
        executor: Executor,
        limits: WorkerLimits,
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
        self._executor = executor
        self._limits = limits
        self._attempts: set[_Attempt] = set()
        self._wake = asyncio.Event()

    @classmethod
    def build(
        cls,
        resources: Resources,
        handlers: Mapping[str, RunJob],
        *,
        isolation: Isolation | None = None,
        worker_id: str | None = None,
    ) -> Self:
        """Build the worker from a process's resources."""
        return cls(
            resources.database,
            resources.notifier,
            Executor.build(resources, handlers),
            WorkerLimits.of(resources.settings),
            isolation=isolation,
            worker_id=worker_id,
        )

    async def run(self) -> None:
        """Work until canceled; then finish the running jobs, or release them."""
        await self._take_over()
        seconds = self._limits.lease_seconds / 3
        try:
            async with background(repeat("heartbeat", self._beat, seconds=seconds)):
                try:
                    await self._work()
                finally:
                    await self._drain()
        finally:
            await self._leave()

    async def _work(self) -> None:
        with self._notifier.subscribed(WORK) as self._wake:
            while True:
                await attempt("claiming jobs", self._claim_jobs)
                await wait_for(self._wake, POLL_SECONDS)

    async def _take_over(self) -> None:
        """Queue a predecessor's jobs, and retry those that wait for the configuration."""
        try:
            async with self._database.transaction(ALL_ROOTS) as connection:
                if self._has_predecessor:
                    await queue.requeue_lost(connection, self._limits.retries, dead_worker=self.id)
                await queue.retry_blocked(connection)
        except AppError as error:  # leases and pauses expire anyway
            _logger.warning("jobs of the predecessor not taken over", reason=error.detail)

    async def _claim_jobs(self) -> None:
        """Claim and start as many jobs as there are free slots."""
        while len(self._attempts) < self._limits.concurrency:
            job = await self._claim()
            if job is None:
                return
            started = _Attempt(job)
            started.task = asyncio.create_task(self._run_attempt(started))
            self._attempts.add(started)

    async def _claim(self) -> ClaimedJob | None:
        children = sum(running.job.isolated for running in self._attempts)
        async with self._database.transaction(ALL_ROOTS) as connection:
            await queue.lock_claims(connection)
            return await queue.claim(
                connection,
                self.id,
                lease_seconds=self._limits.lease_seconds,
                concurrency=self._limits.concurrency,
                max_per_root=self._limits.max_per_root,
                isolated=children < MAX_CHILDREN,
            )

    async def _run_attempt(self, running: _Attempt) -> None:
        try:
            await self._execute(running)
        except AppError as error:  # the lease expires, and the job is queued again
            _logger.warning(
                "end of a job could not be recorded", job=running.job.id, reason=error.detail
            )
        except Exception:  # a bug must be logged, but must not end the worker
            _logger.exception("end of a job could not be recorded", job=running.job.id)
        finally:
            self._attempts.discard(running)
            self._wake.set()  # a slot is free, and the next job of its key or root may start

    async def _execute(self, running: _Attempt) -> None:
        async with background(self._watch(running)):
            try:
                if running.job.isolated and self._isolation is not None:
                    await self._executor.execute_isolated(running.job, self._isolation)
                else:
                    await self._executor.execute(running.job)
            except asyncio.CancelledError:
                if not running.interrupted:  # draining: `_leave` releases all jobs together
                    raise
                await self._executor.end_cancelled(running.job)

    async def _watch(self, running: _Attempt) -> None:
        """Check a job at each notification; a notifier that reconnects wakes all."""
        with self._notifier.subscribed(CANCEL, running.job.id) as news:
            while not running.interrupted:
                await news.wait()
                news.clear()
                with suppress(AppError):  # the next heartbeat checks again
                    async with self._database.transaction(ALL_ROOTS) as connection:
                        kept = await self._extend_leases(connection, [running])
                    _interrupt_others([running], kept)

    async def _beat(self) -> None:
        """Record that this worker is alive, extend its leases, and queue jobs of lost workers."""
        running = list(self._attempts)
        async with self._database.transaction(ALL_ROOTS) as connection:
            await queue.record_heartbeat(connection, self.id, self._limits.concurrency)
            kept = await self._extend_leases(connection, running)
            lost = await queue.requeue_lost(connection, self._limits.retries)
        _interrupt_others(running, kept)
        if lost:
            _logger.warning("jobs of a lost worker queued again", jobs=lost)

    async def _extend_leases(
        self, connection: Connection, running: Collection[_Attempt]
    ) -> set[tuple[str, int]]:
        jobs = [one.job for one in running]
        return await queue.extend_leases(connection, jobs, self._limits.lease_seconds)

    async def _drain(self) -> None:
        tasks = [running.task for running in self._attempts]
        if tasks:
            await asyncio.wait(tasks, timeout=self._limits.drain_seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _leave(self) -> None:
        """Release the remaining jobs, including one whose claim was interrupted."""
        with suppress(AppError):
            async with self._database.transaction(ALL_ROOTS) as connection:
                await queue.release(connection, self.id)
                await queue.remove_worker(connection, self.id)


def new_worker_id() -> str:
    """Return a unique id."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


def _interrupt_others(running: Collection[_Attempt], kept: Collection[tuple[str, int]]) -> None:
    for one in running:
        if (one.job.id, one.job.attempt) not in kept:
            one.interrupt()
