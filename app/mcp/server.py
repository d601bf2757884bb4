"""The MCP server: the same whatever carries its messages."""

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import structlog
from mcp import MCPError, types
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel import Server
from pydantic import ValidationError

from app.errors import AppError
from app.mcp import prompts, resources, tools
from app.mcp.caller import Caller, Context
from app.mcp.errors import ToolError

INSTRUCTIONS = (
    "Long-term memory that outlives this conversation. Search it before you answer whenever "
    "earlier conversations may matter. Remember what will matter later: lasting facts about the "
    "user, preferences, decisions, plans, what worked. Keep it right: update or forget what has "
    "changed instead of adding a second memory."
)

_FAILED = "memoryd failed at this; its log says why."

_logger = structlog.get_logger("memoryd.mcp")


def create_server(caller_of: Callable[[Context], Caller]) -> Server[Any]:
    """Return the server; `caller_of` says on whose behalf a request is made."""

    async def list_tools(
        context: Context, _: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        return types.ListToolsResult(tools=tools.listed(caller_of(context)))

    async def call_tool(
        context: Context, params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        return await tools.call(caller_of(context), params.name, params.arguments)

    async def list_resources(
        context: Context, params: types.PaginatedRequestParams | None
    ) -> types.ListResourcesResult:
        return await resources.list_page(caller_of(context), params.cursor if params else None)

    async def list_resource_templates(
        _context: Context, _: types.PaginatedRequestParams | None
    ) -> types.ListResourceTemplatesResult:
        return types.ListResourceTemplatesResult(resource_templates=list(resources.TEMPLATES))

    async def read_resource(
        context: Context, params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult:
        return await resources.read(caller_of(context), params.uri)

    async def list_prompts(
        context: Context, params: types.PaginatedRequestParams | None
    ) -> types.ListPromptsResult:
        return await prompts.list_page(caller_of(context), params.cursor if params else None)

    async def get_prompt(
        context: Context, params: types.GetPromptRequestParams
    ) -> types.GetPromptResult:
        return await prompts.get(caller_of(context), params.name, params.arguments)

    server: Server[Any] = Server(
        "memoryd",
        version=version("memoryd"),
        title="memoryd",
        instructions=INSTRUCTIONS,
        get_tool_input_schema=lambda _: None,  # no argument of ours travels in a header
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_resources=list_resources,
        on_list_resource_templates=list_resource_templates,
        on_read_resource=read_resource,
        on_list_prompts=list_prompts,
        on_get_prompt=get_prompt,
    )
    server.middleware.append(_with_explained_errors)
    return server


async def _with_explained_errors(
    ctx: ServerRequestContext[Any, Any], call_next: CallNext
) -> HandlerResult:
    """Answer a request; the SDK would tell clients the text of any exception, as it is."""
    try:
        return await call_next(ctx)
    except (MCPError, ValidationError):
        raise
    except ToolError as error:
        raise MCPError(types.INVALID_PARAMS, str(error)) from error
    except AppError as error:
        code = types.INTERNAL_ERROR if error.status >= 500 else types.INVALID_PARAMS
        data = {"code": error.code, "status": error.status}
        raise MCPError(code, error.detail, data) from error
    except Exception as error:
        _logger.exception("MCP request failed", method=ctx.method)
        raise MCPError(types.INTERNAL_ERROR, _FAILED) from error
