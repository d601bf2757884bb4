"""How every route that submits a job answers: at once, or when the job is done."""

import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Request, Response

from app.auth.access import Access
from app.auth.errors import ForbiddenError, UnauthenticatedError
from app.db.database import DatabaseUnavailableError
from app.dependencies import resources_of
from app.errors import InvalidRequestError
from app.http.bodies import may_be_held
from app.http.query_strings import header_parameter
from app.http.responses import json_response
from app.jobs import encoding
from app.jobs.errors import IdempotencyKeyReusedError
from app.jobs.idempotency import PARAMETER, Idempotent
from app.jobs.job import SETTLED, NewJob
from app.jobs.schemas import Job
from app.jobs.service import JobService

MAX_WAIT_SECONDS = 120

SUBMIT_PARAMETERS = [
    header_parameter(
        "Prefer",
        r"(^|.*[,;\s])wait=\d+.*$",
        f"wait=N: answer when the job is done, within N seconds (at most {MAX_WAIT_SECONDS}).",
    ),
    PARAMETER,
]
"""The OpenAPI parameters that `submit` reads."""

SUBMIT_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"model": Job, "description": "The job is done: what Prefer: wait waited for"},
    202: {
        "model": Job,
        "description": "The job is accepted",
        "headers": {"Location": {"schema": {"type": "string"}, "description": "The job."}},
    },
}

SUBMIT_ERRORS = (
    UnauthenticatedError,
    ForbiddenError,
    InvalidRequestError,
    IdempotencyKeyReusedError,
    DatabaseUnavailableError,
)

_WAIT = re.compile(r'(?:^|[,;\s])wait\s*=\s*("?)(\d+)\1(?:$|[,;\s])')


async def submit(
    request: Request, access: Access, plan: Callable[[], Awaitable[NewJob]]
) -> Response:
    """Store a job, and answer 202, or 200 with the job done where the client prefers to wait."""
    resources = resources_of(request)
    jobs = JobService.build(resources)
    seconds = wait_seconds(request)
    idempotent = await Idempotent.read(request)
    job_id = await idempotent.known(resources.database, access)
    if job_id is None:
        new = await plan()
        async with resources.database.transaction(access.root) as connection:
            job_id = await idempotent.replayed(connection, access)
            if job_id is None:
                job_id = await jobs.create(connection, access, new, urgent=seconds > 0)
                await idempotent.remember(connection, access, job_id)
    return await job_answer(request, access, job_id, seconds)


async def job_answer(
    request: Request, access: Access, job_id: str, seconds: float, *, member: str | None = None
) -> Response:
    """Return a submitted job, or an object with the job as its `member`.

    The status is 200 if the job settles within `seconds`, else 202.
    """
    deadline = time.monotonic() + seconds
    row = await JobService.build(resources_of(request)).wait(access, job_id, seconds)
    done = row["state"] in SETTLED
    headers = {"Location": f"/v1/jobs/{job_id}"}
    if seconds and (done or time.monotonic() >= deadline):
        headers["Preference-Applied"] = f"wait={seconds}"
    job = encoding.job(row, access)
    answer = job if member is None else {member: job}
    return json_response(answer, headers, status=200 if done else 202)


def wait_seconds(request: Request, *, default: int = 0) -> int:
    """Return how long the client prefers to wait (RFC 7240), the default if it does not say.

    No request waits with a large body while memory for those is scarce.
    """
    if not may_be_held(request):
        return 0
    found = _WAIT.search(", ".join(request.headers.getlist("prefer")).lower())
    return min(int(found[2][:9]), MAX_WAIT_SECONDS) if found else default
