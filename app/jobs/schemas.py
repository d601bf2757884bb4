"""Request and response bodies of the routes of jobs."""

from dataclasses import asdict, fields
from operator import attrgetter
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, GetCoreSchemaHandler
from pydantic_core import core_schema

from app.auth.access import Access
from app.db.pages import Page
from app.jobs.record import JobRecord, Selection, State
from app.jobs.results import JobResult
from app.json_values import JsonObject
from app.namespaces import parse_labels
from app.schemas import Clean, Labels, Moment, Number, Schema, Timestamp, WrittenNamespace

MAX_PAGE = 200

MAX_RETRIED = 1_000

_REDACTED = "Only keys with `read` on the job's namespace are shown why."


class _AsStored:
    """Marks a value that is sent as it was stored; its type is only for the OpenAPI document."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.json_or_python_schema(
            json_schema=handler(source),
            python_schema=core_schema.any_schema(),
            serialization=core_schema.plain_serializer_function_ser_schema(lambda value: value),
        )


StoredResult = Annotated[JobResult | None, _AsStored()]
"""A job's result in a response."""


class JobUsage(BaseModel):
    """A job's model calls, over all attempts."""

    model_calls: int = Field(description="Calls that a model answered.")
    input_tokens: int = Field(description="Including those read from a provider's cache.")
    output_tokens: int = Field(description="Tokens that the models wrote.")
    cached_tokens: int = Field(description="Read from a provider's cache.")
    cost_usd: float | None = Field(description="null if the price of a model is unknown.")


class JobError(BaseModel):
    """Why a job failed, or why its last attempt did."""

    code: str = Field(description="The kind of error, for programs.")
    detail: str = Field(description="The problem, and how to solve it.")


class ListedJob(BaseModel):
    """A job in a list."""

    id: str = Field(
        description="Sorts by the time of submission.",
        examples=["job_019a3c5e7b2d0c1f2e3d4c5b6a798897"],
    )
    kind: str = Field(description="The kind of job.", examples=["extract"])
    state: State = Field(description="succeeded, failed and cancelled are final.")
    namespace: list[str] = Field(
        description="The namespace of its memories; empty: the whole root."
    )
    manager: str | None = Field(description="The stored manager it was submitted with.")
    thread_id: str | None = Field(description="The thread that it reads.")
    attempt: int = Field(description="Attempts that were started.")
    max_attempts: int = Field(description="Attempts that may be started.")
    cancel_requested: bool = Field(description="Whether a client requested its cancellation.")
    error: JobError | None = Field(description="null unless the last attempt failed.")
    blocked_since: Timestamp | None = Field(
        description="Time since which it waits for the operator to correct the configuration, as "
        "`error` explains; null: it does not."
    )
    redacted: bool = Field(
        description="Whether the result and the details of errors and events are left out, because "
        "the key did not submit the job and has no `read` on its namespace."
    )
    usage: JobUsage = Field(description="Its model calls.")
    run_at: Timestamp = Field(description="Time when it may start or was due.")
    created_at: Timestamp = Field(description="Time of submission.")
    started_at: Timestamp | None = Field(description="Time when the first attempt started.")
    finished_at: Timestamp | None = Field(description="Time of its end; null before.")


def _members(job: JobRecord, access: Access) -> dict[str, Any]:
    """Return the members of a job in a list, without those that the caller may not read."""
    is_readable = job.is_readable_by(access)
    members = {field.name: getattr(job, field.name) for field in fields(job)}
    error = job.error and JobError(
        code=job.error.code, detail=job.error.detail if is_readable else _REDACTED
    )
    return {
        **members,
        "namespace": access.relative(job.namespace),
        "blocked_since": job.blocked_since if job.is_blocked else None,
        "redacted": not is_readable,
        "error": error,
        "usage": JobUsage(**asdict(job.usage)),
        "result": _result(job) if is_readable else None,
    }


def _result(job: JobRecord) -> JsonObject | None:
    """Return a job's result with its kind, by which clients record results apart."""
    return None if job.result is None else {"kind": job.kind, **job.result_object}


class Job(ListedJob):
    """A job and its result."""

    result: StoredResult = Field(
        description="The result, by kind; null before its end, and if `redacted`."
    )

    @classmethod
    def of(cls, job: JobRecord, access: Access) -> Self:
        """Return a job as the caller may see it."""
        return cls(**_members(job, access))


class JobInPage(ListedJob):
    """A job in a list, with its result if that was asked for."""

    result: StoredResult = Field(None, description="Present only with include=result.")

    @classmethod
    def of(cls, job: JobRecord, access: Access, *, with_result: bool) -> Self:
        """Return a job as the caller may see it; without its result, the member is unset."""
        members = _members(job, access)
        if not with_result:
            del members["result"]
        return cls(**members)


class JobList(BaseModel):
    """A page of jobs, newest first."""

    jobs: list[JobInPage] = Field(description="Empty if there are none.")
    next_cursor: str | None = Field(description="Send it for the next page; null: there is none.")

    @classmethod
    def of(cls, page: Page[JobRecord], access: Access, *, with_results: bool) -> Self:
        """Return a page as the caller may see it."""
        jobs = [JobInPage.of(job, access, with_result=with_results) for job in page.items]
        return cls(jobs=jobs, next_cursor=page.next_cursor(attrgetter("id")))


class ListJobs(Schema):
    """Which jobs to list."""

    namespace: WrittenNamespace = Field(
        "", description="Jobs at or below it; labels joined by dots, or a JSON array."
    )
    state: State | None = Field(None, description="Only jobs in this state.")
    kind: Clean | None = Field(None, description="Only jobs of this kind.", max_length=64)
    thread_id: Clean | None = Field(None, description="Only jobs of this thread.", max_length=512)
    cursor: Clean | None = Field(None, description="next_cursor of the page before.", max_length=64)
    limit: int = Field(50, ge=1, le=MAX_PAGE, description="At most this many.")
    include: Literal["result"] | None = Field(
        None,
        description="result: include their results; a page then ends early after about 4 MiB.",
    )

    @property
    def labels(self) -> list[str]:
        """The labels of the namespace."""
        return parse_labels(self.namespace)

    @property
    def equal(self) -> dict[str, str]:
        """Columns and their required values."""
        wanted = {"state": self.state, "kind": self.kind, "thread_id": self.thread_id}
        return {column: value for column, value in wanted.items() if value is not None}


class RetryJobs(Schema):
    """Conditions for the jobs to queue again; absent ones match all."""

    namespace: Labels = Field([], description="Jobs at or below it; empty: the whole root.")
    state: Literal["failed", "cancelled"] = Field("failed", description="How they ended.")
    kind: Clean | None = Field(None, description="Only jobs of this kind.", max_length=64)
    error_code: Clean | None = Field(
        None, description="Only jobs whose `error` has this code.", max_length=64
    )
    created_after: Moment | None = Field(None, description="Submitted then or later.")
    created_before: Moment | None = Field(None, description="Submitted earlier.")
    limit: Annotated[int, Number] = Field(
        MAX_RETRIED, ge=1, le=MAX_RETRIED, description="At most this many, the oldest first."
    )

    @property
    def selection(self) -> Selection:
        """The conditions, for the repository."""
        return Selection(
            State(self.state),
            self.kind,
            self.error_code,
            self.created_after,
            self.created_before,
            self.limit,
        )


class RetriedJobs(BaseModel):
    """The number of jobs queued again."""

    retried: int = Field(description="Jobs that were queued again.")
    has_more: bool = Field(description="Whether there may be more; if so, repeat the request.")
