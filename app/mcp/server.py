"""The MCP server: the same whatever carries its messages."""

from collections.abc import Callable
from importlib.metadata import version
from typing import Any, Protocol, TypeAlias

import structlog
from mcp import MCPError, types
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel import Server
from pydantic import ValidationError

from app.errors import AppError
from app.mcp import prompts, resources, tools
from app.mcp.caller import Caller, Context
from app.tools.base import ToolError

INSTRUCTIONS = (
    "Long-term memory that outlives this conversation. Search it before you answer whenever "
    "earlier conversations may matter. Remember what will matter later: lasting facts about the "
    "user, preferences, decisions, plans, what worked. Keep it right: update or forget what has "
    "changed instead of adding a second memory."
)

ABOUT = types.Implementation(name="memoryd", title="memoryd", version=version("memoryd"))

AnyServer: TypeAlias = Server[Any]
Page: TypeAlias = types.PaginatedRequestParams | None

_FAILED = "memoryd failed at this; its log says why."

_logger = structlog.get_logger("memoryd.mcp")


class Handlers(Protocol):
    """Answers the requests of clients."""

    async def list_tools(self, context: Context, params: Page) -> types.ListToolsResult:
        """Answer `tools/list`."""
        ...

    async def call_tool(
        self, context: Context, params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        """Answer `tools/call`."""
        ...

    async def list_resources(self, context: Context, params: Page) -> types.ListResourcesResult:
        """Answer `resources/list`."""
        ...

    async def list_resource_templates(
        self, context: Context, params: Page
    ) -> types.ListResourceTemplatesResult:
        """Answer `resources/templates/list`."""
        ...

    async def read_resource(
        self, context: Context, params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult:
        """Answer `resources/read`."""
        ...

    async def list_prompts(self, context: Context, params: Page) -> types.ListPromptsResult:
        """Answer `prompts/list`."""
        ...

    async def get_prompt(
        self, context: Context, params: types.GetPromptRequestParams
    ) -> types.GetPromptResult:
        """Answer `prompts/get`."""
        ...


def server_of(
    handlers: Handlers, about: types.Implementation, instructions: str | None
) -> AnyServer:
    """Return a server that answers as `handlers` do, in either protocol."""
    return Server(
        about.name,
        version=about.version,
        title=about.title,
        instructions=instructions,
        get_tool_input_schema=lambda _: None,  # no argument of ours travels in a header
        on_list_tools=handlers.list_tools,
        on_call_tool=handlers.call_tool,
        on_list_resources=handlers.list_resources,
        on_list_resource_templates=handlers.list_resource_templates,
        on_read_resource=handlers.read_resource,
        on_list_prompts=handlers.list_prompts,
        on_get_prompt=handlers.get_prompt,
    )


def create_server(caller_of: Callable[[Context], Caller]) -> AnyServer:
    """Return memoryd as a server; `caller_of` says on whose behalf a request is made."""
    server = server_of(_Memory(caller_of), ABOUT, INSTRUCTIONS)
    server.middleware.append(_with_explained_errors)
    return server


class _Memory:
    """What memoryd answers."""

    def __init__(self, caller_of: Callable[[Context], Caller]) -> None:
        self._caller_of = caller_of

    async def list_tools(self, context: Context, _: Page) -> types.ListToolsResult:
        return types.ListToolsResult(tools=tools.listed(self._caller_of(context)))

    async def call_tool(
        self, context: Context, params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        return await tools.call(self._caller_of(context), params.name, params.arguments)

    async def list_resources(self, context: Context, params: Page) -> types.ListResourcesResult:
        return await resources.list_page(self._caller_of(context), cursor_of(params))

    async def list_resource_templates(
        self, _context: Context, _: Page
    ) -> types.ListResourceTemplatesResult:
        return types.ListResourceTemplatesResult(resource_templates=list(resources.TEMPLATES))

    async def read_resource(
        self, context: Context, params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult:
        return await resources.read(self._caller_of(context), params.uri)

    async def list_prompts(self, context: Context, params: Page) -> types.ListPromptsResult:
        return await prompts.list_page(self._caller_of(context), cursor_of(params))

    async def get_prompt(
        self, context: Context, params: types.GetPromptRequestParams
    ) -> types.GetPromptResult:
        return await prompts.get(self._caller_of(context), params.name, params.arguments)


def cursor_of(params: Page) -> str | None:
    """Return where a page begins; None: at the beginning."""
    return params.cursor if params else None


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
