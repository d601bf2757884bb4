"""HTTP routes that submit jobs, one for each kind that a request may ask for."""

from fastapi import APIRouter, Request, Response

from app import job_kinds
from app.auth.dependencies import GuardedRoute, JobsAccess
from app.consolidation.schemas import ConsolidateRequest
from app.conversations.errors import InvalidMessageError, MissingVariableError, UnknownVariableError
from app.extraction.schemas import ExtractRequest
from app.jobs.responses import SUBMIT_PARAMETERS, submit, submit_responses
from app.jobs.schemas import Job
from app.managers.errors import ManagerNotFoundError
from app.prompts.errors import (
    PromptLabelNotFoundError,
    PromptNotFoundError,
    PromptVersionNotFoundError,
)
from app.prompts.job_schemas import OptimizePrompt
from app.providers.llm.pool import LLMNotConfiguredError
from app.threads.errors import ThreadNotFoundError
from app.threads.summaries.schemas import SummarizeRequest
from app.tools.schemas import SearchRequest

router = APIRouter(prefix="/jobs", tags=["jobs"], route_class=GuardedRoute)


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
