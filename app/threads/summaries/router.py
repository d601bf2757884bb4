"""HTTP route that submits jobs to sum conversations up."""

from fastapi import APIRouter, Request, Response

from app.auth.dependencies import JobsAccess
from app.auth.route import GuardedRoute
from app.dependencies import resources_of
from app.http.problems import problem_responses
from app.jobs.submitting import SUBMIT_ERRORS, SUBMIT_PARAMETERS, SUBMIT_RESPONSES, submit
from app.managers.errors import InvalidMessageError
from app.providers.llm.pool import LLMNotConfiguredError
from app.threads.errors import ThreadNotFoundError
from app.threads.summaries.schemas import SummarizeRequest
from app.threads.summaries.tasks import summarizing_job

router = APIRouter(prefix="/jobs", tags=["jobs"], route_class=GuardedRoute)


@router.post(
    "/summarize",
    operation_id="summarize_conversation",
    openapi_extra={"parameters": SUBMIT_PARAMETERS},
    summary="Shorten a conversation by a running summary, or record it as one object",
    description="Submits a job that shortens a conversation to a budget, with a summary in place "
    "of its older messages, or records the whole of it as one object. The answer is 202 "
    "and the job, or, with Prefer: wait=N, 200 and the finished job.",
    status_code=202,
    responses={
        **SUBMIT_RESPONSES,
        **problem_responses(
            *SUBMIT_ERRORS, ThreadNotFoundError, InvalidMessageError, LLMNotConfiguredError
        ),
    },
)
async def summarize_conversation(
    request: Request, body: SummarizeRequest, access: JobsAccess
) -> Response:
    resources = resources_of(request)
    return await submit(request, access, lambda: summarizing_job(resources, access, body))
