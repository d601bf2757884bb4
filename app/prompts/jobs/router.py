"""HTTP route that submits jobs to improve prompts."""

from fastapi import APIRouter, Request, Response

from app.auth.dependencies import JobsAccess
from app.auth.route import GuardedRoute
from app.dependencies import resources_of
from app.http.problems import problem_responses
from app.jobs.submitting import SUBMIT_ERRORS, SUBMIT_PARAMETERS, SUBMIT_RESPONSES, submit
from app.managers.errors import InvalidMessageError
from app.prompts.errors import (
    PromptLabelNotFoundError,
    PromptNotFoundError,
    PromptVersionNotFoundError,
)
from app.prompts.jobs.planning import optimizing_job
from app.prompts.jobs.schemas import OptimizePrompt
from app.providers.llm.pool import LLMNotConfiguredError
from app.threads.errors import ThreadNotFoundError

router = APIRouter(prefix="/jobs", tags=["jobs"], route_class=GuardedRoute)


@router.post(
    "/optimize-prompt",
    operation_id="optimize_prompt",
    openapi_extra={"parameters": SUBMIT_PARAMETERS},
    summary="Improve prompts by conversations that were held with them",
    description="Submits a job that improves prompts by conversations and the feedback on "
    "them. The answer is 202 and the job, or, with Prefer: wait=N, 200 and the finished job.",
    status_code=202,
    responses={
        **SUBMIT_RESPONSES,
        **problem_responses(
            *SUBMIT_ERRORS,
            PromptNotFoundError,
            PromptVersionNotFoundError,
            PromptLabelNotFoundError,
            ThreadNotFoundError,
            InvalidMessageError,
            LLMNotConfiguredError,
        ),
    },
)
async def optimize_prompt(request: Request, body: OptimizePrompt, access: JobsAccess) -> Response:
    resources = resources_of(request)
    return await submit(request, access, lambda: optimizing_job(resources, access, body))
