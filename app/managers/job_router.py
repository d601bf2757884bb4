"""HTTP routes that submit the jobs of managers."""

from fastapi import APIRouter, Request, Response

from app.auth.dependencies import JobsAccess
from app.auth.route import GuardedRoute
from app.http.problems import problem_responses
from app.jobs.submitting import SUBMIT_ERRORS, SUBMIT_PARAMETERS, SUBMIT_RESPONSES, submit
from app.managers.errors import (
    InvalidMessageError,
    ManagerNotFoundError,
    MissingVariableError,
    UnknownVariableError,
)
from app.managers.router import service_of
from app.managers.schemas import ConsolidateRequest, ExtractRequest
from app.providers.llm.pool import LLMNotConfiguredError

router = APIRouter(prefix="/jobs", tags=["jobs"], route_class=GuardedRoute)


@router.post(
    "/extract",
    operation_id="extract_memories",
    openapi_extra={"parameters": SUBMIT_PARAMETERS},
    summary="Extract memories from a conversation",
    description="Submits a job that learns from a conversation, with a stored manager (`manager`), "
    "one that the request describes (`manager_config`), or every default. The answer is "
    "202 and the job, or, with Prefer: wait=N, 200 and the finished job.",
    status_code=202,
    responses={
        **SUBMIT_RESPONSES,
        **problem_responses(
            *SUBMIT_ERRORS,
            ManagerNotFoundError,
            MissingVariableError,
            UnknownVariableError,
            InvalidMessageError,
            LLMNotConfiguredError,
        ),
    },
)
async def extract_memories(request: Request, body: ExtractRequest, access: JobsAccess) -> Response:
    managers = service_of(request)
    return await submit(request, access, lambda: managers.plan_extract(access, body))


@router.post(
    "/consolidate",
    operation_id="consolidate_memories",
    openapi_extra={"parameters": SUBMIT_PARAMETERS},
    summary="Tidy up the memories at and below a namespace",
    description="Submits a job that merges, corrects, and drops memories at and below a namespace. "
    "The answer is 202 and the job, or, with Prefer: wait=N, 200 and the finished job.",
    status_code=202,
    responses={
        **SUBMIT_RESPONSES,
        **problem_responses(*SUBMIT_ERRORS, ManagerNotFoundError, LLMNotConfiguredError),
    },
)
async def consolidate_memories(
    request: Request, body: ConsolidateRequest, access: JobsAccess
) -> Response:
    managers = service_of(request)
    return await submit(request, access, lambda: managers.plan_consolidate(access, body))
