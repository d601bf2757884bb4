"""Context of a job handler: the job, progress events, model calls, and completion."""

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
    """The job was cancelled or claimed by another worker; its changes must not be committed."""


class JobFailedError(Exception):
    """The job cannot succeed in any attempt; `code` and `detail` state the reason."""

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

    def __init__(self, max_bytes: int) -> None:
        super().__init__(
            ProcessDiedError.code,
            f"The job needs more than {max_bytes} bytes of memory (MEMORYD_JOB_MEMORY_BYTES).",
        )


class JobConflictError(Exception):
    """Concurrent writers changed the job's memories too often; a later attempt may succeed."""


class JobRun:
    """One attempt at a job."""

    def __init__(
        self, job: ClaimedJob, database: Database, call_limit: asyncio.Semaphore | None = None
    ) -> None:
        """Each model call holds `call_limit`; without it, calls are not limited."""
        self.job = job
        self.finished = False
        self._database = database
        self._call_limit = call_limit or nullcontext()

    async def report(self, event: str, **data: Any) -> None:
        """Record an event, which clients that follow the job receive."""
        async with self._database.transaction(self.job.access.root) as connection:
            await repository.add_event(connection, self.job, event, data)

    async def complete(self, llm: LLM, request: Request, *, purpose: str) -> Completion:
        """Call a model, and record the cost before returning."""
        async with self._call_limit:
            started = time.perf_counter()
            try:
                completion = await llm.complete(request)
            except UnusableReplyError as error:
                await self._record_call(purpose, error.completion, started)
                raise
        await self._record_call(purpose, completion, started)
        return completion

    def asking(self, llm: LLM) -> Callable[[Request, str], Awaitable[Completion]]:
        """Return a function that calls a model for a purpose, and records the cost."""

        async def ask(request: Request, purpose: str) -> Completion:
            return await self.complete(llm, request, purpose=purpose)

        return ask

    async def _record_call(self, purpose: str, completion: Completion, started: float) -> None:
        milliseconds = round((time.perf_counter() - started) * 1000)
        # The call was paid for, so it is recorded even if the job is lost or cancelled right now.
        await asyncio.shield(self._store_call(purpose, completion, milliseconds))

    async def _store_call(self, purpose: str, completion: Completion, milliseconds: int) -> None:
        async with self._database.transaction(self.job.access.root) as connection:
            await repository.add_call(connection, self.job, purpose, completion, milliseconds)
            event = {
                "purpose": purpose,
                "model": completion.model,
                "finish_reason": completion.finish_reason,
                "tool_calls": len(completion.calls),
                **asdict(completion.usage),
                "duration_ms": milliseconds,
            }
            await repository.add_event(connection, self.job, "model_call", event)

    async def finish(
        self, connection: Connection, result: Mapping[str, Any], state: State = State.SUCCEEDED
    ) -> None:
        """End the job in the transaction that writes its effect.

        Raises JobLostError if this attempt no longer has the job, or the job is being cancelled;
        the transaction must then not be committed.
        """
        if not await repository.finish(connection, self.job, state, result):
            raise JobLostError
        self.finished = True
