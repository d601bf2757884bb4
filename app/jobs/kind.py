"""Kinds of jobs: each has a plan, made from a request, and a handler that carries it out.

A feature defines its plan and its handler; `app.job_kinds` registers them. A handler is given a
`JobRun`: the job, progress events, model calls, and completion.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Generic, Protocol, TypeAlias, TypeVar

from pydantic import BaseModel

from app.auth.access import Access
from app.db.database import Connection, Database
from app.jobs import reply_repository, repository
from app.jobs.record import ClaimedJob, NewJob, State
from app.namespaces import StoredNamespace
from app.providers.llm import LLM, Completion, Request, UnusableReplyError
from app.resources import Resources

RequestT = TypeVar("RequestT")

Plan: TypeAlias = Callable[[Resources, Access, RequestT], Awaitable[NewJob]]


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
        self._asked: set[str] = set()  # digests of this attempt's own calls

    async def report(self, event: str, **data: Any) -> None:
        """Record an event, which clients that follow the job receive."""
        async with self._database.transaction(self.job.access.root) as connection:
            await repository.add_event(connection, self.job, event, data)

    async def complete(self, llm: LLM, request: Request, *, purpose: str) -> Completion:
        """Call a model, and record the cost and the reply before returning.

        The reply to a request of an earlier attempt is returned without a call. One attempt that
        repeats a request wants another reply.
        """
        digest = reply_repository.digest_request(llm.name, request)
        kept = None if digest in self._asked else await self._find_kept(digest)
        if kept is not None:
            await self.report("reply_reused", purpose=purpose, model=kept.model)
            return kept
        self._asked.add(digest)
        async with self._call_limit:
            started = time.perf_counter()
            try:
                completion = await llm.complete(request)
            except UnusableReplyError as error:
                await self._record_call(purpose, error.completion, started)
                raise
        completion = replace(completion, digest=digest)
        await self._record_call(purpose, completion, started)
        return completion

    async def _find_kept(self, digest: str) -> Completion | None:
        async with self._database.connection(self.job.access.root) as connection:
            return await reply_repository.find(connection, self.job, digest)

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
            if completion.digest is not None:
                await reply_repository.add(connection, self.job, completion)
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


class JobPlan(BaseModel):
    """Everything that a job needs to know, decided when it is submitted and stored as JSON."""

    job_kind: ClassVar[str]
    """The name of the kind, which is stored and shown to clients."""

    def new_job(
        self,
        namespace: StoredNamespace,
        *,
        concurrency_key: str | None = None,
        dedupe_key: str | None = None,
        manager: str | None = None,
        thread_id: str | None = None,
        delay_seconds: float = 0.0,
    ) -> NewJob:
        """Return a job that carries out this plan; `namespace` is a stored namespace."""
        return NewJob(
            kind=self.job_kind,
            namespace=namespace,
            request=self.to_json(),
            concurrency_key=concurrency_key,
            dedupe_key=dedupe_key,
            manager=manager,
            thread_id=thread_id,
            delay_seconds=delay_seconds,
        )

    def to_json(self) -> Mapping[str, Any]:
        """Return the plan as a JSON object."""
        return self.model_dump(mode="json")


PlanT = TypeVar("PlanT", bound=JobPlan)
PlanT_contra = TypeVar("PlanT_contra", bound=JobPlan, contravariant=True)


RunJob: TypeAlias = Callable[[JobRun], Awaitable[None]]
"""Runs one attempt at a job of one kind."""


class Handler(Protocol[PlanT_contra]):
    """Runs the jobs of one kind."""

    async def run(self, run: JobRun, plan: PlanT_contra) -> None:
        """Run a job, and call `run.finish` once, in the transaction that writes its outcome.

        No connection may be held while a model answers. Raises JobFailedError, JobConflictError,
        ProviderError and AppError; the executor decides about another attempt.
        """
        ...


@dataclass(frozen=True, slots=True)
class JobKind(Generic[RequestT, PlanT]):
    """A kind of job: how a request becomes a job, and how the job is run.

    `handler` builds what runs the jobs, from a process's resources. `plan` checks a request and the
    caller's rights, and returns the job to submit; None if no request submits this kind.
    """

    plan_type: type[PlanT]
    handler: Callable[[Resources], Handler[PlanT]]
    plan: Plan[RequestT] | None = None

    @property
    def name(self) -> str:
        """The kind's name."""
        return self.plan_type.job_kind

    async def plan_job(self, resources: Resources, access: Access, request: RequestT) -> NewJob:
        """Return the job that a request asks for; raises the errors of the kind's `plan`."""
        if self.plan is None:
            raise TypeError(f"No request submits jobs of the kind {self.name}.")
        return await self.plan(resources, access, request)

    def bind(self, resources: Resources) -> RunJob:
        """Return a function that runs jobs of this kind with a process's resources."""
        handler, plan_type = self.handler(resources), self.plan_type

        async def run_job(run: JobRun) -> None:
            await handler.run(run, plan_type.model_validate(run.job.request))

        return run_job
