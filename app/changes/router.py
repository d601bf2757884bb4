"""HTTP routes of reviews: what jobs of managers changed, or want to change."""

from fastapi import APIRouter, Request, Response

from app.auth.dependencies import JobsAccess
from app.auth.route import GuardedRoute
from app.changes import encoding as review_encoding
from app.changes.review import ReviewService
from app.changes.schemas import JobChangeList, ListJobChanges
from app.changes.undo import UndoService
from app.dependencies import resources_of
from app.http.problems import problem_responses
from app.http.query_strings import query_parameters, read_query
from app.http.responses import json_response
from app.indexing.passage_index import EmbeddingFailedError
from app.jobs import encoding
from app.jobs.errors import JobStateError
from app.jobs.router import ONE, JobId
from app.jobs.schemas import Job
from app.store.errors import TooManyConflictsError

DEFAULT_PAGE = 100

CHANGES = (*ONE, JobStateError, TooManyConflictsError, EmbeddingFailedError)

router = APIRouter(prefix="/jobs", tags=["jobs"], route_class=GuardedRoute)


def service_of(request: Request) -> ReviewService:
    """Return the reviews of the process that serves a request."""
    return ReviewService.build(resources_of(request))


@router.get(
    "/{job_id}/changes",
    operation_id="list_job_changes",
    openapi_extra={"parameters": query_parameters(ListJobChanges)},
    summary="List what a job changed, or wants to change",
    description="Lists the inserts, updates, and deletes that a job made, or proposes, in order, "
    "with the values before and after.",
    response_model=JobChangeList,
    responses=problem_responses(*ONE),
)
async def list_job_changes(request: Request, job_id: JobId, access: JobsAccess) -> Response:
    query = read_query(ListJobChanges, request)
    page = await service_of(request).list_changes(
        access, job_id, after=query.cursor or 0, limit=query.limit or DEFAULT_PAGE
    )
    return json_response(review_encoding.changes(page, access))


@router.post(
    "/{job_id}/apply",
    operation_id="apply_job",
    summary="Apply what a job proposed, but to items changed since",
    description="Applies the changes that a job proposed and that wait for a review, except "
    "for items that have changed since.",
    response_model=Job,
    responses=problem_responses(*CHANGES),
)
async def apply_job(request: Request, job_id: JobId, access: JobsAccess) -> Response:
    row = await service_of(request).apply(access, job_id)
    return json_response(encoding.job(row, access))


@router.post(
    "/{job_id}/discard",
    operation_id="discard_job",
    summary="Discard what a job proposed; the job is cancelled",
    description="Drops the changes that a job proposed; the job counts as canceled.",
    response_model=Job,
    responses=problem_responses(*ONE, JobStateError),
)
async def discard_job(request: Request, job_id: JobId, access: JobsAccess) -> Response:
    row = await service_of(request).discard(access, job_id)
    return json_response(encoding.job(row, access))


@router.post(
    "/{job_id}/undo",
    operation_id="undo_job",
    summary="Take back what a job did, but to items changed since",
    description="Takes back what a job changed, except for items that have changed since.",
    response_model=Job,
    responses=problem_responses(*CHANGES),
)
async def undo_job(request: Request, job_id: JobId, access: JobsAccess) -> Response:
    row = await UndoService.build(resources_of(request)).undo(access, job_id)
    return json_response(encoding.job(row, access))
