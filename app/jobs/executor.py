"""Doing one job: its handler is run, and what becomes of the attempt is written down."""

import asyncio
from collections.abc import Mapping
from typing import Any

import structlog

from app.config import Settings
from app.db.database import ALL_ROOTS, Database
from app.errors import AppError
from app.jobs import queue
from app.jobs.isolation import COULD_NOT_RUN, Isolation
from app.jobs.kind import RunJob
from app.jobs.record import ClaimedJob
from app.jobs.run import (
    JobConflictError,
    JobFailedError,
    JobLostError,
    JobRun,
    OutOfMemoryError,
    ProcessDiedError,
)
from app.jobs.turns import RootTurns
from app.json_values import replace_unstorable
from app.providers.errors import MisconfiguredError, ProviderError
from app.providers.llm.pool import LLMNotConfiguredError
from app.supervisor import ending_of

_logger = structlog.get_logger("memoryd.jobs")

AT_ONCE = 0.0

MOST_CHARACTERS = 2_000
"""Of an error's detail: some providers answer with a whole page."""


class Executor:
    """Runs the handler of a job's kind."""

    def __init__(
        self, database: Database, handlers: Mapping[str, RunJob], settings: Settings
    ) -> None:
        self._database = database
        self._handlers = handlers
        self._settings = settings
        self._turns = RootTurns(settings.llm_concurrency)

    async def execute(self, job: ClaimedJob) -> None:
        """Do a job and record how it ended; when cancelled itself, the caller says what then."""
        run = JobRun(job, self._database, self._turns.of(job.access.root))
        with structlog.contextvars.bound_contextvars(job=job.id, kind=job.kind):
            try:
                async with asyncio.timeout(self._settings.job_timeout_seconds):
                    await self._handlers[job.kind](run)
            except asyncio.CancelledError as error:
                if _is_cancelled():
                    raise
                await self._failed(job, RuntimeError(f"the handler let {error!r} through"))
            except JobLostError:
                await self.end_cancelled(job)  # or another worker has it, and nothing is changed
            except MemoryError:
                await self._failed(job, OutOfMemoryError(self._settings.job_memory_bytes))
            except Exception as error:  # noqa: BLE001  # it ends the attempt, not the worker
                await self._failed(job, error)
            else:
                if not run.finished:
                    await self._failed(job, RuntimeError("the handler ended without a result"))

    async def execute_isolated(self, job: ClaimedJob, isolation: Isolation) -> None:
        """Do a job in a child process; when cancelled itself, the child is killed."""
        with structlog.contextvars.bound_contextvars(job=job.id, kind=job.kind):
            try:
                status = await isolation.run(job)
            except OSError as error:
                _logger.warning("isolated job could not be started", reason=str(error))
                status = COULD_NOT_RUN
            if status == COULD_NOT_RUN:
                await self.end_cancelled(job)
            elif status:
                await self._failed(job, ProcessDiedError(ending_of(status)))

    async def end_cancelled(self, job: ClaimedJob) -> None:
        """Note that a job that was to be cancelled has stopped."""
        error = _described("interrupted", "The attempt was interrupted.")
        await self._give_up(job, error, retry_after=AT_ONCE)

    async def _failed(self, job: ClaimedJob, error: Exception) -> None:
        described, retry_after = self._judged(error)
        waits, isolates = is_misconfigured(error), _is_suspect(error, job)
        _logger.warning(
            "job attempt failed",
            attempt=job.attempt,
            code=described["code"],
            detail=described["detail"],
        )
        if waits or isolates:
            async with self._database.transaction(ALL_ROOTS) as connection:
                await queue.put_off(
                    connection, job, described, isolates=isolates, settings=self._settings
                )
        else:
            await self._give_up(job, described, retry_after=retry_after)

    async def _give_up(
        self, job: ClaimedJob, error: Mapping[str, Any], *, retry_after: float | None
    ) -> None:
        async with self._database.transaction(ALL_ROOTS) as connection:
            await queue.give_up(
                connection, job, error, retry_after=retry_after, settings=self._settings
            )

    def _judged(self, error: Exception) -> tuple[dict[str, str], float | None]:
        """Return what to tell of an error, and after how many seconds another attempt may help."""
        match error:
            case JobFailedError():
                return _described(error.code, error.detail), None
            case JobConflictError():
                return _described("conflict", str(error)), AT_ONCE
            case TimeoutError():
                seconds = self._settings.job_timeout_seconds
                detail = f"The attempt took longer than {seconds:g} seconds."
                return _described("timeout", detail), AT_ONCE
            case ProviderError():
                retry_after = (error.retry_after or AT_ONCE) if error.retryable else None
                return _described(error.code, str(error)), retry_after
            case AppError():
                passing = error.status >= 500 or error.status == 409
                return _described(error.code, error.detail), AT_ONCE if passing else None
            case _:
                _logger.error("job met a mistake of ours", exc_info=error)
                detail = "The worker failed; its log has the cause under the job's id."
                return _described("internal_error", detail), AT_ONCE


def is_misconfigured(error: BaseException) -> bool:
    """Tell whether an error lasts until the operator corrects the configuration."""
    kinds = (MisconfiguredError, LLMNotConfiguredError)
    return isinstance(error, kinds) or isinstance(error.__cause__, MisconfiguredError)


def _is_suspect(error: Exception, job: ClaimedJob) -> bool:
    """Tell whether a job may have used up the memory that it shared with others."""
    return isinstance(error, OutOfMemoryError) and not job.isolated


def _is_cancelled() -> bool:
    """Tell whether the attempt is interrupted, rather than something that its handler awaited."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _described(code: str, detail: str) -> dict[str, str]:
    return {"code": code, "detail": replace_unstorable(detail)[:MOST_CHARACTERS]}
