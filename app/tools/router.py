"""HTTP routes of tools for agents."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from app.auth.dependencies import (
    GUARDED_ERRORS,
    GuardedRoute,
    ReadAccess,
    StoreAccess,
    resources_of,
)
from app.conversations.messages import InvalidMessageError
from app.conversations.namespace_template import MissingVariableError, UnknownVariableError
from app.http.headers import MAX_WAIT_SECONDS, PREFER_PATTERN, header_parameter, wait_seconds
from app.http.messages import json_response, query_parameters, read_query
from app.http.problems import problem_responses
from app.indexing.passages import EmbeddingFailedError
from app.managers.service import ManagerNotFoundError
from app.providers.llm import LLMNotConfiguredError
from app.schemas import Clean
from app.tools.schemas import CallTool, ListTools, ToolAnswer, ToolList
from app.tools.service import ToolService
from app.tools.tool import ToolNotFoundError

DEFAULT_WAIT_SECONDS = 60

_PREFER = header_parameter(
    "Prefer",
    PREFER_PATTERN,
    f"wait=N: wait up to N seconds (at most {MAX_WAIT_SECONDS}) for a model's searches; "
    f"absent: {DEFAULT_WAIT_SECONDS}.",
)

router = APIRouter(prefix="/tools", tags=["tools"], route_class=GuardedRoute)


@router.get(
    "",
    operation_id="list_tools",
    openapi_extra={"parameters": query_parameters(ListTools)},
    summary="Get the definitions of memory tools for a model",
    description="Returns the definitions of memory tools in a provider's format, limited to the "
    "kind and actions in the query.",
    responses=problem_responses(*GUARDED_ERRORS, ToolNotFoundError, ManagerNotFoundError),
)
async def list_tools(request: Request, access: ReadAccess) -> ToolList:
    query = read_query(ListTools, request)
    definitions = await ToolService.build(resources_of(request)).definitions(access, query)
    form = query.format or "openai"
    return ToolList(tools=[definition.in_format(form) for definition in definitions])


@router.post(
    "/{name}",
    operation_id="call_tool",
    openapi_extra={"parameters": [_PREFER]},
    summary="Execute a model's call of a memory tool",
    description="Executes a tool call that a model wrote, in a namespace that the application "
    "chose. A mistake of the model is a result for the model, not an error.",
    response_model=ToolAnswer,
    responses=problem_responses(
        *GUARDED_ERRORS,
        ToolNotFoundError,
        ManagerNotFoundError,
        MissingVariableError,
        UnknownVariableError,
        InvalidMessageError,
        LLMNotConfiguredError,
        EmbeddingFailedError,
    ),
)
async def call_tool(
    request: Request,
    name: Annotated[Clean, Path(description="Name of the tool, as in its definition.")],
    body: CallTool,
    access: StoreAccess,
) -> Response:
    seconds = wait_seconds(request, default=DEFAULT_WAIT_SECONDS)
    tools = ToolService.build(resources_of(request))
    result = await tools.call(access, name, body, wait_seconds=seconds)
    return json_response(result)  # its artifact holds the values of items as text
