"""Responses of routes that submit a job or start one: at once, or when the job is done."""

import time
from typing import Any, TypeVar

from fastapi import Request, Response

from app.auth.access import Access
from app.auth.dependencies import resources_of
from app.auth.errors import ForbiddenError, UnauthenticatedError
from app.db.database import DatabaseUnavailableError
from app.db.idempotency import IdempotencyKeyReusedError
from app.errors import AppError, InvalidRequestError
from app.http.headers import IDEMPOTENCY_PARAMETER, PREFER_PARAMETER, read_idempotency, wait_seconds
from app.http.problems import problem_responses
from app.jobs.kind import JobKind, JobPlan
from app.jobs.schemas import Job
from app.jobs.service import JobService

_RequestT = TypeVar("_RequestT")
_PlanT = TypeVar("_PlanT", bound=JobPlan)

SUBMIT_PARAMETERS = [PREFER_PARAMETER, IDEMPOTENCY_PARAMETER]
"""The OpenAPI parameters of routes that submit a job."""

JOB_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"model": Job, "description": "The job is done: what Prefer: wait waited for"},
    202: {
        "model": Job,
        "description": "The job is accepted",
        "headers": {"Location": {"schema": {"type": "string"}, "description": "The job."}},
    },
}
"""The OpenAPI responses of routes that answer with a job that was submitted."""

_SUBMIT_ERRORS = (
    UnauthenticatedError,
    ForbiddenError,
    InvalidRequestError,
    IdempotencyKeyReusedError,
    DatabaseUnavailableError,
)


def submit_responses(*errors: type[AppError]) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI responses of a route that submits a job and may raise these errors."""
    return {**JOB_RESPONSES, **problem_responses(*_SUBMIT_ERRORS, *errors)}


async def submit(
    request: Request,
    response: Response,
    access: Access,
    kind: JobKind[_RequestT, _PlanT],
    body: _RequestT,
) -> Job:
    """Plan and store a job; answer 202, or 200 if the client prefers to wait and it is done."""
    resources = resources_of(request)
    jobs = JobService.build(resources)
    idempotent = await read_idempotency(request, access.root, access.actor)
    job_id = await idempotent.find_answer(resources.database)
    if job_id is None:
        new = await kind.plan_job(resources, access, body)
        is_urgent = wait_seconds(request) > 0
        async with resources.database.transaction(access.root) as connection:
            job_id = await idempotent.claim(connection)
            if job_id is None:
                job_id = await jobs.create(connection, access, new, urgent=is_urgent)
                await idempotent.remember(connection, job_id)
    return await wait_for_job(request, response, access, job_id)


async def wait_for_job(request: Request, response: Response, access: Access, job_id: str) -> Job:
    """Return a submitted job, after waiting for it as long as the client prefers.

    Sets the status, 200 if the job is settled and else 202, and the headers.
    """
    seconds = wait_seconds(request)
    deadline = time.monotonic() + seconds
    job = await JobService.build(resources_of(request)).wait(access, job_id, seconds)
    response.status_code = 200 if job.is_settled else 202
    response.headers["Location"] = f"/v1/jobs/{job_id}"
    if seconds and (job.is_settled or time.monotonic() >= deadline):
        response.headers["Preference-Applied"] = f"wait={seconds}"
    return Job.of(job, access)
