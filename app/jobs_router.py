"""The HTTP API of jobs, every route under `/v1/jobs`: to submit, read, follow, and review them."""

import re
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Request, Response
from fastapi.routing import APIRoute
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.convertors import StringConvertor, register_url_convertor

from app import job_kinds
from app.auth.dependencies import GUARDED_ERRORS, GuardedRoute, JobsAccess, resources_of
from app.changes.review import ReviewService
from app.changes.schemas import JobChangeList, ListJobChanges
from app.changes.undo import UndoService
from app.consolidation.plan import ConsolidateRequest
from app.conversations.messages import InvalidMessageError
from app.conversations.namespace_template import MissingVariableError, UnknownVariableError
from app.db.database import TooManyConflictsError
from app.extraction.plan import ExtractRequest
from app.http.messages import json_response, query_parameters, read_query
from app.http.problems import problem_responses
from app.http.request_context import OverloadedError, long_wait
from app.indexing.passages import EmbeddingFailedError
from app.jobs.responses import SUBMIT_PARAMETERS, submit, submit_responses
from app.jobs.schemas import Job, JobList, ListJobs, RetriedJobs, RetryJobs
from app.jobs.service import JobNotFoundError, JobService, JobStateError
from app.managers.service import ManagerNotFoundError
from app.prompts.job_schemas import OptimizePrompt
from app.prompts.types import (
    PromptLabelNotFoundError,
    PromptNotFoundError,
    PromptVersionNotFoundError,
)
from app.providers.llm import LLMNotConfiguredError
from app.threads.service import ThreadNotFoundError
from app.threads.summary_plan import SummarizeRequest
from app.tools.schemas import SearchRequest

router = APIRouter(prefix="/jobs", tags=["jobs"], route_class=GuardedRoute)

ONE = (*GUARDED_ERRORS, JobNotFoundError)

_EVENT_ID = re.compile("[0-9]{1,9}")

JobId = Annotated[str, Path(description="The id that the submission returned.")]

DEFAULT_CHANGES = 100

_CHANGES = (*ONE, JobStateError, TooManyConflictsError, EmbeddingFailedError)


@router.post(
    "/extract",
    operation_id="extract_memories",
    openapi_extra={"parameters": SUBMIT_PARAMETERS},
    summary="Extract memories from a conversation",
    description="Submits a job that extracts memories from a conversation, with a stored manager "
    "(`manager`), one that the request describes (`manager_config`), or every default. The answer "
    "is 202 and the job, or, with Prefer: wait=N, 200 and the finished job.",
    status_code=202,
    responses=submit_responses(
        ManagerNotFoundError,
        MissingVariableError,
        UnknownVariableError,
        InvalidMessageError,
        LLMNotConfiguredError,
    ),
)
async def extract_memories(
    request: Request, response: Response, body: ExtractRequest, access: JobsAccess
) -> Job:
    return await submit(request, response, access, job_kinds.EXTRACT, body)


@router.post(
    "/consolidate",
    operation_id="consolidate_memories",
    openapi_extra={"parameters": SUBMIT_PARAMETERS},
    summary="Tidy up the memories at and below a namespace",
    description="Submits a job that merges, corrects, and drops memories at and below a namespace. "
    "The answer is 202 and the job, or, with Prefer: wait=N, 200 and the finished job.",
    status_code=202,
    responses=submit_responses(ManagerNotFoundError, LLMNotConfiguredError),
)
async def consolidate_memories(
    request: Request, response: Response, body: ConsolidateRequest, access: JobsAccess
) -> Job:
    return await submit(request, response, access, job_kinds.CONSOLIDATE, body)


@router.post(
    "/summarize",
    operation_id="summarize_conversation",
    openapi_extra={"parameters": SUBMIT_PARAMETERS},
    summary="Shorten a conversation by a running summary, or record it as one object",
    description="Submits a job that shortens a conversation to a budget, with a summary in place "
    "of its older messages, or records the whole of it as one object. The answer is 202 "
    "and the job, or, with Prefer: wait=N, 200 and the finished job.",
    status_code=202,
    responses=submit_responses(ThreadNotFoundError, InvalidMessageError, LLMNotConfiguredError),
)
async def summarize_conversation(
    request: Request, response: Response, body: SummarizeRequest, access: JobsAccess
) -> Job:
    return await submit(request, response, access, job_kinds.SUMMARIZE, body)


@router.post(
    "/optimize-prompt",
    operation_id="optimize_prompt",
    openapi_extra={"parameters": SUBMIT_PARAMETERS},
    summary="Improve prompts by conversations that were held with them",
    description="Submits a job that improves prompts by conversations and the feedback on "
    "them. The answer is 202 and the job, or, with Prefer: wait=N, 200 and the finished job.",
    status_code=202,
    responses=submit_responses(
        PromptNotFoundError,
        PromptVersionNotFoundError,
        PromptLabelNotFoundError,
        ThreadNotFoundError,
        InvalidMessageError,
        LLMNotConfiguredError,
    ),
)
async def optimize_prompt(
    request: Request, response: Response, body: OptimizePrompt, access: JobsAccess
) -> Job:
    return await submit(request, response, access, job_kinds.OPTIMIZE_PROMPT, body)


@router.post(
    "/search",
    operation_id="search_memories",
    openapi_extra={"parameters": SUBMIT_PARAMETERS},
    summary="Search for memories about a conversation, with queries that a model writes",
    description="Submits a job in which a model writes the searches that a conversation calls for. "
    "The answer is 202 and the job, or, with Prefer: wait=N, 200 and the finished job.",
    status_code=202,
    responses=submit_responses(
        ManagerNotFoundError,
        MissingVariableError,
        UnknownVariableError,
        InvalidMessageError,
        LLMNotConfiguredError,
    ),
)
async def search_memories(
    request: Request, response: Response, body: SearchRequest, access: JobsAccess
) -> Job:
    return await submit(request, response, access, job_kinds.SEARCH, body)


# The routes so far, which submit jobs.
_SUBMIT_PATHS = [route.path for route in router.routes if isinstance(route, APIRoute)]
_NOT_IDS = ["retry", *(path.rpartition("/")[2] for path in _SUBMIT_PATHS)]


class _JobIdConvertor(StringConvertor):
    """Matches any id of a job, but no other path below /v1/jobs, so the order of routes is free."""

    regex = rf"(?!(?:{'|'.join(map(re.escape, _NOT_IDS))})(?:/|$))[^/]+"


register_url_convertor("job", _JobIdConvertor())


def service_of(request: Request) -> JobService:
    """Return the jobs of the process that serves a request."""
    return JobService.build(resources_of(request))


def reviews_of(request: Request) -> ReviewService:
    """Return the reviews of the process that serves a request."""
    return ReviewService.build(resources_of(request))


@router.get(
    "",
    operation_id="list_jobs",
    summary="List jobs, newest first",
    description="Lists jobs at or below a namespace, newest first.",
    openapi_extra={"parameters": query_parameters(ListJobs)},
    response_model_exclude_unset=True,  # a job without its result has no such member
    responses=problem_responses(*GUARDED_ERRORS),
)
async def list_jobs(request: Request, access: JobsAccess) -> JobList:
    query = read_query(ListJobs, request)
    page = await service_of(request).list(
        access,
        query.labels,
        equal=query.equal,
        before=query.cursor,
        limit=query.limit,
        with_results=query.include is not None,
    )
    return JobList.of(page, access, with_results=query.include is not None)


@router.post(
    "/retry",
    operation_id="retry_jobs",
    summary="Queue many failed or cancelled jobs again",
    description="Queues up to 1,000 jobs again, the oldest first, with all of their attempts, in "
    "one transaction. Repeat the request while `has_more` is true.",
    responses=problem_responses(*GUARDED_ERRORS),
)
async def retry_jobs(request: Request, body: RetryJobs, access: JobsAccess) -> RetriedJobs:
    retried, more = await service_of(request).retry_all(access, body.namespace, body.selection)
    return RetriedJobs(retried=retried, has_more=more)


@router.get(
    "/{job_id:job}",
    operation_id="get_job",
    summary="Read a job with its result",
    description="Reads a job: its state, attempts, and cost, and, once it has ended, its result or "
    "error.",
    responses=problem_responses(*ONE),
)
async def get_job(request: Request, job_id: JobId, access: JobsAccess) -> Job:
    job = await service_of(request).get(access, job_id)
    return Job.of(job, access)


async def find_job(request: Request, job_id: JobId, access: JobsAccess) -> None:
    """Raise JobNotFoundError before a stream begins, which could not report it any more."""
    await service_of(request).get_state(access, job_id)


async def hold_long_wait() -> AsyncIterator[None]:
    """Count a stream among the long waits; raises OverloadedError before it begins."""
    with long_wait():
        yield


@router.get(
    "/{job_id:job}/events",
    operation_id="follow_job",
    summary="Follow a job: a stream of server-sent events, up to its end",
    description="The id of an event is its number; send the last one as Last-Event-ID to resume. "
    "The data is a JSON object with `event`, `data` and `at`.",
    response_class=EventSourceResponse,
    responses=problem_responses(*ONE, OverloadedError),
    dependencies=[Depends(find_job), Depends(hold_long_wait)],
)
async def follow_job(
    request: Request,
    job_id: JobId,
    access: JobsAccess,
    last_event_id: Annotated[str | None, Header(description="The last event received.")] = None,
) -> AsyncIterator[ServerSentEvent]:
    after = int(found[0]) if (found := _EVENT_ID.fullmatch(last_event_id or "")) else 0
    jobs = service_of(request)
    state = await jobs.get_state(access, job_id)
    is_readable = state.is_readable_by(access)
    async for event in jobs.follow(access, job_id, after):
        data = event.members(is_readable=is_readable)
        yield ServerSentEvent(data=data, event=event.event, id=str(event.number))


@router.post(
    "/{job_id:job}/cancel",
    operation_id="cancel_job",
    summary="Cancel a job that has not ended, queued or running",
    description="Cancels a job that has not ended. Its worker stops a running one, which writes "
    "nothing.",
    responses=problem_responses(*ONE, JobStateError),
)
async def cancel_job(request: Request, job_id: JobId, access: JobsAccess) -> Job:
    job = await service_of(request).cancel(access, job_id)
    return Job.of(job, access)


@router.post(
    "/{job_id:job}/retry",
    operation_id="retry_job",
    summary="Queue a failed or cancelled job again",
    description="Queues a failed or canceled job again, with all of its attempts.",
    responses=problem_responses(*ONE, JobStateError),
)
async def retry_job(request: Request, job_id: JobId, access: JobsAccess) -> Job:
    job = await service_of(request).retry(access, job_id)
    return Job.of(job, access)


@router.get(
    "/{job_id:job}/changes",
    operation_id="list_job_changes",
    openapi_extra={"parameters": query_parameters(ListJobChanges)},
    summary="List the changes that a job made or proposed",
    description="Lists the inserts, updates, and deletes that a job made or proposed, in order, "
    "with the values before and after.",
    response_model=JobChangeList,
    responses=problem_responses(*ONE),
)
async def list_job_changes(request: Request, job_id: JobId, access: JobsAccess) -> Response:
    query = read_query(ListJobChanges, request)
    page = await reviews_of(request).list_changes(
        access, job_id, after=query.cursor or 0, limit=query.limit or DEFAULT_CHANGES
    )
    return json_response(JobChangeList.members(page, access))


@router.post(
    "/{job_id:job}/apply",
    operation_id="apply_job",
    summary="Apply a job's proposed changes, except to items that have changed",
    description="Applies the changes that a job proposed and that wait for a review, except to "
    "items that have changed since.",
    responses=problem_responses(*_CHANGES),
)
async def apply_job(request: Request, job_id: JobId, access: JobsAccess) -> Job:
    job = await reviews_of(request).apply(access, job_id)
    return Job.of(job, access)


@router.post(
    "/{job_id:job}/discard",
    operation_id="discard_job",
    summary="Discard a job's proposed changes; the job is cancelled",
    description="Discards the changes that a job proposed, and cancels the job.",
    responses=problem_responses(*ONE, JobStateError),
)
async def discard_job(request: Request, job_id: JobId, access: JobsAccess) -> Job:
    job = await reviews_of(request).discard(access, job_id)
    return Job.of(job, access)


@router.post(
    "/{job_id:job}/undo",
    operation_id="undo_job",
    summary="Undo a job's changes, except to items that have changed since",
    description="Reverts a job's changes, except to items that have changed since.",
    responses=problem_responses(*_CHANGES),
)
async def undo_job(request: Request, job_id: JobId, access: JobsAccess) -> Job:
    job = await UndoService.build(resources_of(request)).undo(access, job_id)
    return Job.of(job, access)
