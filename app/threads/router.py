"""HTTP routes of threads, and of the runs that LangMem's remote executor creates."""

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import quote, unquote

from fastapi import APIRouter, Path, Request, Response
from typing_extensions import override

from app.auth.dependencies import JobsAccess, ReadAccess, ThreadAccess
from app.auth.errors import ForbiddenError, UnauthenticatedError
from app.auth.route import GuardedRoute
from app.db.database import DatabaseUnavailableError
from app.dependencies import resources_of
from app.errors import InvalidRequestError
from app.http.openapi.parameters import query_parameters
from app.http.prefer import PREFER_PARAMETER, wait_seconds
from app.http.problems import problem_responses
from app.http.query_strings import read_query
from app.http.responses import json_response
from app.jobs.errors import IdempotencyKeyReusedError
from app.jobs.idempotency import PARAMETER, Idempotent
from app.jobs.responses import JOB_RESPONSES, job_response
from app.managers.errors import (
    InvalidMessageError,
    ManagerNotFoundError,
    MissingVariableError,
    UnknownVariableError,
)
from app.providers.llm.pool import LLMNotConfiguredError
from app.threads import encoding
from app.threads.errors import (
    AmbiguousThreadError,
    ThreadElsewhereError,
    ThreadNotFoundError,
    ThreadWithoutManagerError,
)
from app.threads.runs import RunService, is_placeholder
from app.threads.schemas import (
    AppendedMessages,
    AppendMessages,
    ConversationThread,
    CreateRun,
    FlushedThread,
    ReadMessages,
    Run,
    ThreadId,
    ThreadMessages,
)
from app.threads.service import ThreadService

ALWAYS = (UnauthenticatedError, ForbiddenError, InvalidRequestError, DatabaseUnavailableError)

ONE = (*ALWAYS, ThreadNotFoundError, AmbiguousThreadError)

LEARNS = (
    *ALWAYS,
    IdempotencyKeyReusedError,
    ManagerNotFoundError,
    MissingVariableError,
    InvalidMessageError,
    LLMNotConfiguredError,
)

RUN_HEADERS = {
    "Content-Location": {"schema": {"type": "string"}, "description": "The run, for the SDKs."},
    "Location": {"schema": {"type": "string"}, "description": "The job."},
}

InPath = Annotated[ThreadId, Path(description="The client's own id of the conversation.")]


class UndecodedRoute(GuardedRoute):
    """Finds its way by the path as it was sent, so that an id may hold slashes, as `%2F`."""

    @override
    def matches(self, scope: Any) -> Any:
        """Tell whether a request is for this route, and what its path says."""
        match, found = super().matches({**scope, "path": scope["raw_path"].decode("ascii")})
        if parameters := found.get("path_params"):
            found["path_params"] = {name: unquote(text) for name, text in parameters.items()}
        return match, found


router = APIRouter(tags=["threads"], route_class=UndecodedRoute)


def service_of(request: Request) -> ThreadService:
    """Return the threads of the process that serves a request."""
    return ThreadService.build(resources_of(request))


@router.post(
    "/threads/{thread_id}/messages",
    operation_id="append_messages",
    openapi_extra={"parameters": [PARAMETER]},
    summary="Append messages to a thread, to form memories of them when it falls quiet",
    description="Appends messages to a thread, except those whose id it has. Memories are formed "
    "from them in the background, once the thread has been quiet for a while.",
    status_code=202,
    response_model=AppendedMessages,
    responses=problem_responses(
        *LEARNS, UnknownVariableError, ThreadElsewhereError, AmbiguousThreadError
    ),
)
async def append_messages(
    request: Request, thread_id: InPath, body: AppendMessages, access: JobsAccess
) -> Response:
    idempotent = await Idempotent.read(request)
    answer = await service_of(request).append(access, thread_id, body, idempotent)
    return json_response(answer, status=202)


@router.get(
    "/threads/{thread_id}/messages",
    operation_id="list_messages",
    openapi_extra={"parameters": query_parameters(ReadMessages)},
    summary="List a thread's messages in order",
    description="Lists the messages of a thread in the order in which they were said.",
    response_model=ThreadMessages,
    responses=problem_responses(*ONE),
)
async def list_messages(request: Request, thread_id: InPath, access: ReadAccess) -> Response:
    query = read_query(ReadMessages, request)
    page = await service_of(request).messages(access, thread_id, query)
    return json_response(encoding.messages(page))


@router.post(
    "/threads/{thread_id}/flush",
    operation_id="flush_thread",
    openapi_extra={"parameters": [PREFER_PARAMETER]},
    summary="Form memories of a thread now, instead of when it falls quiet",
    description="Starts forming memories from what waits in a thread. The answer is 202 and the "
    "job, 200 and the finished job with Prefer: wait=N, or 200 with `job` null if nothing waits.",
    status_code=202,
    responses={
        200: {"model": FlushedThread, "description": "The job is done, or nothing waits"},
        202: {**JOB_RESPONSES[202], "model": FlushedThread},
        **problem_responses(*ONE, ThreadWithoutManagerError),
    },
)
async def flush_thread(request: Request, thread_id: InPath, access: JobsAccess) -> Response:
    job_id = await service_of(request).flush(access, thread_id)
    if job_id is None:
        return json_response({"job": None})
    return await job_response(request, access, job_id, wait_seconds(request), member="job")


@router.post(
    "/threads/{thread_id}/runs",
    operation_id="create_thread_run",
    openapi_extra={"parameters": [PARAMETER]},
    summary="Learn from a conversation, as LangMem's ReflectionExecutor asks for it",
    description="Takes what LangGraph's SDKs send to create a run in a thread. The assistant is a "
    "stored manager; the run is a job.",
    response_model=Run,
    responses={
        200: {"headers": RUN_HEADERS},
        **problem_responses(*LEARNS, ThreadNotFoundError, ThreadElsewhereError),
    },
)
async def create_thread_run(
    request: Request, thread_id: InPath, body: CreateRun, access: JobsAccess
) -> Response:
    if is_placeholder(thread_id):
        return await create_run(request, body, access)
    idempotent = await Idempotent.read(request)
    runs = RunService.build(resources_of(request))
    run = await runs.create_in_thread(access, thread_id, body, idempotent)
    return _run_answer(run, f"/v1/threads/{quote(thread_id, safe='')}")


@router.post(
    "/runs",
    operation_id="create_run",
    openapi_extra={"parameters": [PARAMETER]},
    summary="Learn from a conversation that has no thread",
    description="Takes what LangGraph's SDKs send to create a run without a thread. The assistant "
    "is a stored manager; the run is a job.",
    response_model=Run,
    responses={200: {"headers": RUN_HEADERS}, **problem_responses(*LEARNS)},
)
async def create_run(request: Request, body: CreateRun, access: JobsAccess) -> Response:
    idempotent = await Idempotent.read(request)
    run = await RunService.build(resources_of(request)).create(access, body, idempotent)
    return _run_answer(run, "/v1")


@router.get(
    "/threads/{thread_id}",
    operation_id="get_thread",
    summary="Read how far memories were formed of a thread",
    description="Reads how many messages a thread has, how far memories were formed from them, "
    "and its running summary.",
    response_model=ConversationThread,
    responses=problem_responses(*ONE),
)
async def get_thread(request: Request, thread_id: InPath, access: ThreadAccess) -> Response:
    row, job = await service_of(request).get(access, thread_id)
    return json_response(encoding.thread(row, job, access))


@router.delete(
    "/threads/{thread_id}",
    operation_id="delete_thread",
    summary="Delete a thread and its messages; memories formed of it stay",
    description="Removes a thread with its messages and cancels its jobs. Memories formed from it "
    "stay.",
    status_code=204,
    responses=problem_responses(*ONE),
)
async def delete_thread(request: Request, thread_id: InPath, access: JobsAccess) -> Response:
    await service_of(request).delete(access, thread_id)
    return Response(status_code=204)


def _run_answer(run: Mapping[str, Any], parent: str) -> Response:
    run_id = run["run_id"]
    headers = {"Content-Location": f"{parent}/runs/{run_id}", "Location": f"/v1/jobs/{run_id}"}
    return json_response(run, headers)
