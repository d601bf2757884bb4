"""The loop that takes jobs from the queue, keeps them, and hands back what it cannot finish."""

import asyncio
import os
import secrets
import socket
from collections.abc import Mapping
from contextlib import suppress

import structlog

from app.config import Settings
from app.db import EVERYTHING, Database
from app.errors import AppError
from app.jobs import queue
from app.jobs.executor import Executor
from app.jobs.job import Job
from app.jobs.run import Handler
from app.notifier import CANCEL, WORK, Notifier, wait_for

LOOK_SECONDS = 1.0
"""How often the queue is looked at without being told of news: delayed jobs come due silently."""

_logger = structlog.get_logger("memoryd.jobs")


class JobWorker:
    """Works on up to `concurrency` jobs at once."""

    def __init__(
        self,
        database: Database,
        notifier: Notifier,
        handlers: Mapping[str, Handler],
        settings: Settings,
    ) -> None:
        self.id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self._database = database
        self._notifier = notifier
        self._executor = Executor(database, handlers, settings)
        self._settings = settings
        self._running: dict[str, tuple[Job, asyncio.Task[None]]] = {}
        self._cancelled: set[str] = set()
        self._free = asyncio.Event()

    async def run(self) -> None:
        """Work until cancelled; then finish what is running, or hand it back."""
        keeping = asyncio.create_task(self._keep_always())
        try:
            with self._notifier.subscribed(WORK) as news:
                while True:
                    await self._take_what_fits()
                    await self._wait(news)
        finally:
            await self._drain()
            keeping.cancel()
            with suppress(asyncio.CancelledError):
                await keeping
            with suppress(AppError):
                async with self._database.transaction(EVERYTHING) as connection:
                    await queue.forget(connection, self.id)

    async def _wait(self, news: asyncio.Event) -> None:
        """Wait for a free place, then for news."""
        while len(self._running) >= self._settings.job_concurrency:
            self._free.clear()
            await self._free.wait()
            news.set()
        await wait_for(news, LOOK_SECONDS)

    async def _take_what_fits(self) -> None:
        try:
            while len(self._running) < self._settings.job_concurrency:
                job = await self._claimed()
                if job is None:
                    return
                task = asyncio.create_task(self._work_on(job))
                self._running[job.id] = (job, task)
        except AppError as error:
            _logger.warning("taking jobs put off", reason=error.detail)
        except Exception:  # a mistake here is told, and must not end the worker
            _logger.exception("taking jobs failed")

    async def _claimed(self) -> Job | None:
        async with self._database.transaction(EVERYTHING) as connection:
            await queue.lock(connection)
            return await queue.claim(
                connection,
                self.id,
                lease_seconds=self._settings.job_lease_seconds,
                most_per_root=self._settings.jobs_per_root,
            )

    async def _work_on(self, job: Job) -> None:
        watching = asyncio.create_task(self._stop_when_cancelled(job))
        try:
            await self._executor.execute(job)
        except asyncio.CancelledError:
            await self._stopped(job)
        except AppError as error:  # the lease runs out, and the job is taken up again
            _logger.warning("the end of a job could not be written", job=job.id, why=error.detail)
        except Exception:
            _logger.exception("the end of a job could not be written", job=job.id)
        finally:
            watching.cancel()
            self._cancelled.discard(job.id)
            del self._running[job.id]
            self._free.set()

    async def _stopped(self, job: Job) -> None:
        if job.id in self._cancelled:
            await self._executor.end_cancelled(job)
            return
        async with self._database.transaction(EVERYTHING) as connection:
            await queue.hand_back(connection, job)

    async def _stop_when_cancelled(self, job: Job) -> None:
        with self._notifier.subscribed(CANCEL, job.id) as news:
            await news.wait()
        self._stop(job.id)

    def _stop(self, job_id: str) -> None:
        if job_id in self._running and job_id not in self._cancelled:
            self._cancelled.add(job_id)
            self._running[job_id][1].cancel()

    async def _keep_always(self) -> None:
        while True:
            try:
                await self._keep()
            except AppError as error:
                _logger.warning("keeping jobs put off", reason=error.detail)
            except Exception:  # a mistake here is told, and must not cost the jobs
                _logger.exception("keeping jobs failed")
            await asyncio.sleep(self._settings.job_lease_seconds / 3)

    async def _keep(self) -> None:
        """Say that this worker lives, keep its jobs, and take up those of workers that do not."""
        held = list(self._running)
        async with self._database.transaction(EVERYTHING) as connection:
            await queue.seen(connection, self.id, self._settings.job_concurrency)
            kept = await queue.extend(connection, self.id, held, self._settings.job_lease_seconds)
            rescued = await queue.rescue(connection, self._settings.job_backoff_seconds)
        for job_id in held:
            if kept.get(job_id, True):  # lost, or to be cancelled
                self._stop(job_id)
        if rescued:
            _logger.warning("jobs of a lost worker taken up", jobs=rescued)

    async def _drain(self) -> None:
        tasks = [task for _, task in self._running.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=self._settings.drain_seconds)
        for _, task in list(self._running.values()):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
