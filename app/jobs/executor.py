"""Execution of one job, in this process or alone in a child process, and how the attempt ended."""

import asyncio
import pickle
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self, TypeAlias
from weakref import WeakValueDictionary

import structlog

from app.background import is_cancelled
from app.config import Settings
from app.conversations.dialogue import NoAnswerError
from app.db.database import ALL_ROOTS, Database
from app.errors import AppError
from app.jobs import queue, reply_repository
from app.jobs.kind import (
    JobConflictError,
    JobFailedError,
    JobLostError,
    JobRun,
    OutOfMemoryError,
    ProcessDiedError,
    RunJob,
)
from app.jobs.queue import RetryPolicy
from app.jobs.record import ClaimedJob, Failure
from app.json_values import replace_unstorable
from app.providers.errors import MisconfiguredError, ProviderError
from app.providers.llm import LLMNotConfiguredError
from app.resources import Resources
from app.supervisor import ending_of

MAX_CHILDREN = 2
"""Isolated jobs that one worker runs at a time; each needs the memory of a process."""

COULD_NOT_RUN = 75
"""Exit status (EX_TEMPFAIL) of a child that could not run its job; the job is not blamed."""

START_SECONDS = 60.0
"""Time that a child may take in addition to its job's timeout."""

MODULE = "app.worker.isolated_job"

BuildHandlers: TypeAlias = Callable[[Resources], Mapping[str, RunJob]]
"""Builds the functions that run jobs, by kind, from the resources of a process."""

_logger = structlog.get_logger("memoryd.jobs")

IMMEDIATELY = 0.0

MAX_DETAIL_CHARACTERS = 2_000
"""Maximum length of an error's detail: some providers answer with a whole page."""


@dataclass(frozen=True, slots=True)
class ChildTask:
    """A child's task; `build_handlers` must be a module-level function, to be pickled."""

    settings: Settings
    job_id: str
    attempt: int
    build_handlers: BuildHandlers


class Isolation:
    """Starts one worker's child processes."""

    def __init__(self, settings: Settings, build_handlers: BuildHandlers) -> None:
        self._settings = settings
        self._build_handlers = build_handlers

    async def run(self, job: ClaimedJob) -> int:
        """Run an attempt in a child process; return its exit status, negative for a signal.

        The child is killed when this is canceled, and when it takes too long.
        """
        task = ChildTask(self._settings, job.id, job.attempt, self._build_handlers)
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", MODULE, stdin=asyncio.subprocess.PIPE, stdout=2
        )
        assert child.stdin is not None  # noqa: S101  # it is a pipe
        try:
            # The pipe stays open; its end signals the child that this process is gone.
            child.stdin.write(pickle.dumps(task))
            async with asyncio.timeout(self._settings.job_timeout_seconds + START_SECONDS):
                return await child.wait()
        except TimeoutError:
            return await _kill(child)
        finally:
            if child.returncode is None:
                await _kill(child)


async def _kill(child: asyncio.subprocess.Process) -> int:
    child.kill()
    return await child.wait()


@dataclass(frozen=True, slots=True)
class ExecutionLimits:
    """Limits of one attempt: its time, its memory, and the model calls of a process."""

    timeout_seconds: float
    memory_bytes: int
    concurrent_calls: int

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the configured limits."""
        return cls(
            settings.job_timeout_seconds, settings.job_memory_bytes, settings.llm_concurrency
        )


class RootCallLimits:
    """Limits the jobs of each root to three quarters of the concurrent model calls."""

    def __init__(self, concurrent_calls: int) -> None:
        self._share = max(1, concurrent_calls * 3 // 4)
        self._semaphores: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    def semaphore(self, root: str) -> asyncio.Semaphore:
        """Return the semaphore that each model call of a root's jobs holds."""
        semaphore = self._semaphores.get(root)
        if semaphore is None:
            semaphore = self._semaphores[root] = asyncio.Semaphore(self._share)
        return semaphore


class Executor:
    """Runs the handlers of jobs."""

    def __init__(
        self,
        database: Database,
        handlers: Mapping[str, RunJob],
        limits: ExecutionLimits,
        retries: RetryPolicy,
    ) -> None:
        self._database = database
        self._handlers = handlers
        self._limits = limits
        self._retries = retries
        self._call_limits = RootCallLimits(limits.concurrent_calls)

    @classmethod
    def build(cls, resources: Resources, handlers: Mapping[str, RunJob]) -> Self:
        """Build the executor from a process's resources."""
        settings = resources.settings
        limits, retries = ExecutionLimits.of(settings), RetryPolicy.of(settings)
        return cls(resources.database, handlers, limits, retries)

    async def execute(self, job: ClaimedJob) -> None:
        """Run a job and record how it ended; if canceled itself, it leaves that to the caller."""
        run = JobRun(job, self._database, self._call_limits.semaphore(job.access.root))
        with structlog.contextvars.bound_contextvars(job=job.id, kind=job.kind):
            try:
                async with asyncio.timeout(self._limits.timeout_seconds):
                    await self._handlers[job.kind](run)
            except asyncio.CancelledError as error:
                if is_cancelled():
                    raise
                await self._fail(job, RuntimeError(f"the handler let {error!r} through"))
            except JobLostError:
                await self.end_cancelled(job)  # or another worker has it, and nothing is changed
            except MemoryError:
                await self._fail(job, OutOfMemoryError(self._limits.memory_bytes))
            except Exception as error:  # noqa: BLE001  # it ends the attempt, not the worker
                await self._fail(job, error)
            else:
                if not run.finished:
                    await self._fail(job, RuntimeError("the handler ended without a result"))

    async def execute_isolated(self, job: ClaimedJob, isolation: Isolation) -> None:
        """Run a job in a child process; if canceled itself, it kills the child."""
        with structlog.contextvars.bound_contextvars(job=job.id, kind=job.kind):
            try:
                status = await isolation.run(job)
            except OSError as error:
                _logger.warning("isolated job could not be started", reason=str(error))
                status = COULD_NOT_RUN
            if status == COULD_NOT_RUN:
                await self.end_cancelled(job)
            elif status:
                await self._fail(job, ProcessDiedError(ending_of(status)))

    async def end_cancelled(self, job: ClaimedJob) -> None:
        """Record that an attempt at a job that is being cancelled has stopped."""
        failure = _failure("interrupted", "The attempt was interrupted.")
        await self._end_attempt(job, failure, retry_after=IMMEDIATELY)

    async def _fail(self, job: ClaimedJob, error: Exception) -> None:
        failure, retry_after = self._classify(error)
        isolates = _should_isolate(error, job)
        _logger.warning(
            "job attempt failed", attempt=job.attempt, code=failure.code, detail=failure.detail
        )
        if isinstance(error, NoAnswerError):
            await self._forget_replies(job, error)
        if isolates or is_misconfigured(error):
            async with self._database.transaction(ALL_ROOTS) as connection:
                await queue.postpone(connection, job, failure, self._retries, isolates=isolates)
        else:
            await self._end_attempt(job, failure, retry_after=retry_after)

    async def _forget_replies(self, job: ClaimedJob, error: NoAnswerError) -> None:
        """Forget the replies that could not be used, so that another attempt asks again."""
        digests = [reply.digest for reply in error.replies if reply.digest is not None]
        async with self._database.transaction(ALL_ROOTS) as connection:
            await reply_repository.delete(connection, job, digests)

    async def _end_attempt(
        self, job: ClaimedJob, failure: Failure, *, retry_after: float | None
    ) -> None:
        async with self._database.transaction(ALL_ROOTS) as connection:
            await queue.end_attempt(
                connection, job, failure, self._retries, retry_after=retry_after
            )

    def _classify(self, error: Exception) -> tuple[Failure, float | None]:
        """Return what to store, and the seconds until another attempt; None if none may help."""
        match error:
            case JobFailedError():
                return _failure(error.code, error.detail), None
            case JobConflictError():
                return _failure("conflict", str(error)), IMMEDIATELY
            case TimeoutError():
                seconds = self._limits.timeout_seconds
                detail = f"The attempt took longer than {seconds:g} seconds."
                return _failure("timeout", detail), IMMEDIATELY
            case ProviderError():
                retry_after = (error.retry_after or IMMEDIATELY) if error.retryable else None
                return _failure(error.code, str(error)), retry_after
            case AppError():
                is_transient = error.status >= 500 or error.status == 409
                return _failure(error.code, error.detail), IMMEDIATELY if is_transient else None
            case _:
                _logger.error("job failed because of a bug", exc_info=error)
                detail = "The worker failed; its log has the cause under the job's id."
                return _failure("internal_error", detail), IMMEDIATELY


def is_misconfigured(error: BaseException) -> bool:
    """Return whether an error lasts until the operator corrects the configuration."""
    kinds = (MisconfiguredError, LLMNotConfiguredError)
    return isinstance(error, kinds) or isinstance(error.__cause__, MisconfiguredError)


def _should_isolate(error: Exception, job: ClaimedJob) -> bool:
    """Return whether a job may have used up the memory that it shared with others."""
    return isinstance(error, OutOfMemoryError) and not job.isolated


def _failure(code: str, detail: str) -> Failure:
    return Failure(code, replace_unstorable(detail)[:MAX_DETAIL_CHARACTERS])
