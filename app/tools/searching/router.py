"""HTTP route that submits jobs in which a model writes the searches."""

from fastapi import APIRouter, Request, Response

from app.auth.dependencies import JobsAccess
from app.auth.route import GuardedRoute
from app.dependencies import resources_of
from app.http.problems import problem_responses
from app.jobs.submitting import SUBMIT_ERRORS, SUBMIT_PARAMETERS, SUBMIT_RESPONSES, submit
from app.managers.errors import (
    InvalidMessageError,
    ManagerNotFoundError,
    MissingVariableError,
    UnknownVariableError,
)
from app.providers.llm.pool import LLMNotConfiguredError
from app.tools.searching.planning import searching_job
from app.tools.searching.schemas import SearchMemories

router = APIRouter(prefix="/jobs", tags=["jobs"], route_class=GuardedRoute)


@router.post(
    "/search",
    operation_id="search_memories",
    openapi_extra={"parameters": SUBMIT_PARAMETERS},
    summary="Search for what a conversation is about, with queries that a model writes",
    description="Submits a job in which a model writes the searches that a conversation calls for. "
    "The answer is 202 and the job, or, with Prefer: wait=N, 200 and the finished job.",
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
async def search_memories(request: Request, body: SearchMemories, access: JobsAccess) -> Response:
    resources = resources_of(request)
    return await submit(request, access, lambda: searching_job(resources, access, body))
