"""Kinds of jobs: each has a plan, made from a request, and a handler that carries it out.

A feature defines its plan and its handler; `app.job_kinds` registers them.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol, TypeAlias, TypeVar

from pydantic import BaseModel

from app.auth.access import Access
from app.jobs.record import NewJob
from app.jobs.run import JobRun
from app.namespaces import StoredNamespace
from app.resources import Resources


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
RequestT = TypeVar("RequestT")

Plan: TypeAlias = Callable[[Resources, Access, RequestT], Awaitable[NewJob]]

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
