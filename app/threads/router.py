"""HTTP routes of threads, and of the runs that LangMem's remote executor creates."""

from dataclasses import replace
from typing import Annotated, Any
from urllib.parse import quote, unquote

from fastapi import APIRouter, Path, Request, Response
from typing_extensions import override

from app.auth.dependencies import (
    GUARDED_ERRORS,
    GuardedRoute,
    JobsAccess,
    ReadAccess,
    ThreadAccess,
    resources_of,
)
from app.conversations.messages import InvalidMessageError
from app.conversations.namespace_template import MissingVariableError, UnknownVariableError
from app.db.idempotency import IdempotencyKeyReusedError
from app.http.headers import IDEMPOTENCY_PARAMETER, PREFER_PARAMETER, read_idempotency
from app.http.messages import json_response, query_parameters, read_query
from app.http.problems import problem_responses
from app.jobs.responses import JOB_RESPONSES, wait_for_job
from app.managers.service import ManagerNotFoundError
from app.providers.llm import LLMNotConfiguredError
from app.threads.runs import RunReceipt, RunService, is_placeholder
from app.threads.schemas import (
    AppendedMessages,
    AppendMessages,
    ConversationThread,
    CreateRun,
    FlushedThread,
    MessageMemories,
    ReadMemories,
    ReadMessages,
    Run,
    ThreadId,
    ThreadMessages,
)
from app.threads.service import (
    AmbiguousThreadError,
    ThreadElsewhereError,
    ThreadNotFoundError,
    ThreadService,
    ThreadWithoutManagerError,
    reads_conversation,
)

ONE = (*GUARDED_ERRORS, ThreadNotFoundError, AmbiguousThreadError)

EXTRACTS = (
    *GUARDED_ERRORS,
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
    """Matches the path as it was sent, so that an id may contain slashes, as `%2F`."""

    @override
    def matches(self, scope: Any) -> Any:
        """Return whether a request is for this route, and return the parameters in its path."""
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
    openapi_extra={"parameters": [IDEMPOTENCY_PARAMETER]},
    summary="Append messages to a thread, to extract memories when it falls quiet",
    description="Appends messages to a thread, except those whose id it has. Memories are "
    "extracted from them in the background, once the thread has been quiet for a while.",
    status_code=202,
    responses=problem_responses(
        *EXTRACTS, UnknownVariableError, ThreadElsewhereError, AmbiguousThreadError
    ),
)
async def append_messages(
    request: Request, thread_id: InPath, body: AppendMessages, access: JobsAccess
) -> AppendedMessages:
    idempotent = await read_idempotency(request, access.root, access.actor)
    result = await service_of(request).append(access, body.command(thread_id), idempotent)
    return AppendedMessages.of(result)


@router.get(
    "/threads/{thread_id}/messages",
    operation_id="list_messages",
    openapi_extra={"parameters": query_parameters(ReadMessages)},
    summary="List a thread's messages in order",
    description="Lists the messages of a thread in order, or those on which a memory rests.",
    response_model=ThreadMessages,
    responses=problem_responses(*ONE),
)
async def list_messages(request: Request, thread_id: InPath, access: ReadAccess) -> Response:
    query = read_query(ReadMessages, request)
    page = await service_of(request).list_messages(
        access, thread_id, start=query.cursor, limit=query.limit, memory_key=query.memory_key
    )
    return json_response(ThreadMessages.members(page))


@router.get(
    "/threads/{thread_id}/memories",
    operation_id="list_message_memories",
    openapi_extra={"parameters": query_parameters(ReadMemories)},
    summary="List the memories that rest on a message",
    description="Lists the memories that were extracted from a message of a thread, the oldest "
    "first.",
    response_model=MessageMemories,
    responses=problem_responses(*ONE),
)
async def list_message_memories(
    request: Request, thread_id: InPath, access: ReadAccess
) -> Response:
    query = read_query(ReadMemories, request)
    page = await service_of(request).list_memories(
        access, thread_id, query.message_id, after=query.cursor, limit=query.limit
    )
    return json_response(MessageMemories.members(page, access))


@router.post(
    "/threads/{thread_id}/flush",
    operation_id="flush_thread",
    openapi_extra={"parameters": [PREFER_PARAMETER]},
    summary="Extract memories from a thread now, instead of when it falls quiet",
    description="Starts the extraction from a thread's pending messages. The response is 202 with "
    "the job, 200 with the finished job with Prefer: wait=N, or 200 with `job` null if no message "
    "is pending.",
    status_code=202,
    responses={
        200: {"model": FlushedThread, "description": "The job is done, or no message is pending"},
        202: {**JOB_RESPONSES[202], "model": FlushedThread},
        **problem_responses(*ONE, ThreadWithoutManagerError),
    },
)
async def flush_thread(
    request: Request, response: Response, thread_id: InPath, access: JobsAccess
) -> FlushedThread:
    job_id = await service_of(request).flush(access, thread_id)
    if job_id is None:
        response.status_code = 200
        return FlushedThread(job=None)
    return FlushedThread(job=await wait_for_job(request, response, access, job_id))


@router.post(
    "/threads/{thread_id}/runs",
    operation_id="create_thread_run",
    openapi_extra={"parameters": [IDEMPOTENCY_PARAMETER]},
    summary="Extract from a conversation, for LangMem's ReflectionExecutor",
    description="Takes what LangGraph's SDKs send to create a run in a thread. The assistant is a "
    "stored manager; the run is a job.",
    responses={
        200: {"headers": RUN_HEADERS},
        **problem_responses(*EXTRACTS, ThreadNotFoundError, ThreadElsewhereError),
    },
)
async def create_thread_run(
    request: Request, response: Response, thread_id: InPath, body: CreateRun, access: JobsAccess
) -> Run:
    if is_placeholder(thread_id):
        return await create_run(request, response, body, access)
    idempotent = await read_idempotency(request, access.root, access.actor)
    runs = RunService.build(resources_of(request))
    receipt = await runs.create_in_thread(access, thread_id, body.command(thread_id), idempotent)
    _set_headers(response, receipt, f"/v1/threads/{quote(thread_id, safe='')}")
    return Run.of(receipt, body)


@router.post(
    "/runs",
    operation_id="create_run",
    openapi_extra={"parameters": [IDEMPOTENCY_PARAMETER]},
    summary="Extract from a conversation without a thread",
    description="Takes what LangGraph's SDKs send to create a run without a thread. The assistant "
    "is a stored manager; the run is a job.",
    responses={200: {"headers": RUN_HEADERS}, **problem_responses(*EXTRACTS)},
)
async def create_run(
    request: Request, response: Response, body: CreateRun, access: JobsAccess
) -> Run:
    idempotent = await read_idempotency(request, access.root, access.actor)
    runs = RunService.build(resources_of(request))
    receipt = await runs.create(access, body.command(), idempotent)
    _set_headers(response, receipt, "/v1")
    return Run.of(receipt, body)


@router.get(
    "/threads/{thread_id}",
    operation_id="get_thread",
    summary="Read a thread's progress and summary",
    description="Reads how many messages a thread has, how far memories were extracted from them, "
    "and its running summary.",
    responses=problem_responses(*ONE),
)
async def get_thread(
    request: Request, thread_id: InPath, access: ThreadAccess
) -> ConversationThread:
    thread, job = await service_of(request).get(access, thread_id)
    shown = thread if reads_conversation(access, thread) else replace(thread, summary=None)
    return ConversationThread.of(shown, job, namespace=access.relative(thread.namespace))


@router.delete(
    "/threads/{thread_id}",
    operation_id="delete_thread",
    summary="Delete a thread and its messages; its memories stay",
    description="Removes a thread with its messages and cancels its jobs. Memories extracted from "
    "it stay.",
    status_code=204,
    responses=problem_responses(*ONE),
)
async def delete_thread(request: Request, thread_id: InPath, access: JobsAccess) -> Response:
    await service_of(request).delete(access, thread_id)
    return Response(status_code=204)


def _set_headers(response: Response, receipt: RunReceipt, parent: str) -> None:
    response.headers["Content-Location"] = f"{parent}/runs/{receipt.job_id}"
    response.headers["Location"] = f"/v1/jobs/{receipt.job_id}"
