"""What a job's handler is given: the job, and the ways to report, to pay and to end."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

from app.db.database import Connection, Database
from app.jobs import repository
from app.jobs.record import ClaimedJob, State
from app.providers.llm.base import LLM, Completion, Request, UnusableReplyError


class JobLostError(Exception):
    """The job was cancelled or given to another worker; what was prepared must not be written."""


class JobFailedError(Exception):
    """The job cannot succeed, however often it is tried; `code` and `detail` say why."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class ProcessDiedError(JobFailedError):
    """The process that ran this job alone died."""

    code = "process_died"

    def __init__(self, ending: str) -> None:
        super().__init__(
            self.code,
            f"The job ended the process that ran it alone ({ending}), after it had been in "
            "another process that died. The worker's log may have the cause.",
        )


class OutOfMemoryError(JobFailedError):
    """The job needs more memory than it may have."""

    def __init__(self, most_bytes: int) -> None:
        super().__init__(
            ProcessDiedError.code,
            f"The job needs more than {most_bytes} bytes of memory (MEMORYD_JOB_MEMORY_BYTES).",
        )


class JobConflictError(Exception):
    """What the job had read was changed meanwhile, too often; trying later may help."""


class JobRun:
    """One attempt at a job."""

    def __init__(
        self, job: ClaimedJob, database: Database, turns: asyncio.Semaphore | None = None
    ) -> None:
        """Each model call holds one of `turns`; without them, calls are not limited."""
        self.job = job
        self.finished = False
        self._database = database
        self._turns = turns or nullcontext()

    async def report(self, event: str, **data: Any) -> None:
        """Tell those who follow the job how far it has come."""
        async with self._database.transaction(self.job.access.root) as connection:
            await repository.add_event(connection, self.job, event, data)

    async def complete(self, llm: LLM, request: Request, *, purpose: str) -> Completion:
        """Ask a model; what the call cost is written down and told before anything else happens."""
        async with self._turns:
            started = time.perf_counter()
            try:
                completion = await llm.complete(request)
            except UnusableReplyError as error:
                await self._write_down(purpose, error.completion, started)
                raise
        await self._write_down(purpose, completion, started)
        return completion

    def asking(self, llm: LLM) -> Callable[[Request, str], Awaitable[Completion]]:
        """Return a function that asks a model for a purpose, and records what the call cost."""

        async def ask(request: Request, purpose: str) -> Completion:
            return await self.complete(llm, request, purpose=purpose)

        return ask

    async def _write_down(self, purpose: str, completion: Completion, started: float) -> None:
        milliseconds = round((time.perf_counter() - started) * 1000)
        # Paid is paid: a job that is lost or cancelled at this moment must not cut this off.
        await asyncio.shield(self._account(purpose, completion, milliseconds))

    async def _account(self, purpose: str, completion: Completion, milliseconds: int) -> None:
        async with self._database.transaction(self.job.access.root) as connection:
            await repository.add_call(connection, self.job, purpose, completion, milliseconds)
            told = {
                "purpose": purpose,
                "model": completion.model,
                "finish_reason": completion.finish_reason,
                "tool_calls": len(completion.calls),
                **asdict(completion.usage),
                "duration_ms": milliseconds,
            }
            await repository.add_event(connection, self.job, "model_call", told)

    async def finish(
        self, connection: Connection, result: Mapping[str, Any], state: State = State.SUCCEEDED
    ) -> None:
        """End the job in the transaction that writes what it did.

        Raises JobLostError, and the transaction must not be committed, unless this attempt still
        has the job and nobody asked to cancel it.
        """
        if not await repository.finish(connection, self.job, state, result):
            raise JobLostError
        self.finished = True
