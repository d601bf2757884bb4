"""The MCP server, independent of its transport, with the tools in MCP's format."""

from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any, Self, TypeAlias

import structlog
from mcp import MCPError, types
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel import Server
from pydantic import ValidationError

from app.auth.access import Verb
from app.errors import AppError
from app.mcp.prompts import ProductionPrompts
from app.mcp.resources import MemoryResources
from app.resources import Resources
from app.tools.service import ToolRegistry, definitions_of
from app.tools.tool import Caller, ToolContext, ToolError, ToolOptions

INSTRUCTIONS = (
    "Long-term memory that outlives this conversation. Search it before you answer whenever "
    "earlier conversations may matter. Remember what will matter later: lasting facts about the "
    "user, preferences, decisions, plans, what worked. Keep it right: update or forget what has "
    "changed instead of adding a second memory."
)

ABOUT = types.Implementation(name="memoryd", title="memoryd", version=version("memoryd"))

AnyServer: TypeAlias = Server[Any]
Context: TypeAlias = ServerRequestContext
Page: TypeAlias = types.PaginatedRequestParams | None

_FAILED = "memoryd failed at this; its log says why."

_logger = structlog.get_logger("memoryd.mcp")

_TOOL_FAILED = "memoryd failed at this; its log says why. Trying again may help."


def create_server(resources: Resources, caller_of: Callable[[Context], Caller]) -> AnyServer:
    """Return memoryd as an MCP server; `caller_of` identifies the client of a request."""
    handlers = _Handlers(resources, caller_of)
    server: AnyServer = Server(
        ABOUT.name,
        version=ABOUT.version,
        title=ABOUT.title,
        instructions=INSTRUCTIONS,
        get_tool_input_schema=no_headers,
        on_list_tools=handlers.list_tools,
        on_call_tool=handlers.call_tool,
        on_list_resources=handlers.list_resources,
        on_list_resource_templates=handlers.list_resource_templates,
        on_read_resource=handlers.read_resource,
        on_list_prompts=handlers.list_prompts,
        on_get_prompt=handlers.get_prompt,
    )
    server.middleware.append(_explain_errors)
    return server


def no_headers(_: str) -> None:
    """Tell the SDK that no argument of a tool is sent in a header."""


def cursor_of(params: Page) -> str | None:
    """Return the cursor of a page; None for the first page."""
    return params.cursor if params else None


class _Handlers:
    """Handlers of MCP requests, on behalf of the caller of each."""

    def __init__(self, resources: Resources, caller_of: Callable[[Context], Caller]) -> None:
        self._tools = McpTools.build(resources)
        self._memories = MemoryResources.build(resources)
        self._prompts = ProductionPrompts.build(resources)
        self._caller_of = caller_of

    async def list_tools(self, context: Context, _: Page) -> types.ListToolsResult:
        return self._tools.list_tools(self._caller_of(context))

    async def call_tool(
        self, context: Context, params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        return await self._tools.call(self._caller_of(context), params.name, params.arguments)

    async def list_resources(self, context: Context, params: Page) -> types.ListResourcesResult:
        return await self._memories.list_page(self._caller_of(context), cursor_of(params))

    async def list_resource_templates(
        self, _context: Context, _: Page
    ) -> types.ListResourceTemplatesResult:
        return self._memories.templates()

    async def read_resource(
        self, context: Context, params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult:
        return await self._memories.read(self._caller_of(context), params.uri)

    async def list_prompts(self, context: Context, params: Page) -> types.ListPromptsResult:
        return await self._prompts.list_page(self._caller_of(context), cursor_of(params))

    async def get_prompt(
        self, context: Context, params: types.GetPromptRequestParams
    ) -> types.GetPromptResult:
        return await self._prompts.get(self._caller_of(context), params.name, params.arguments)


async def _explain_errors(
    ctx: ServerRequestContext[Any, Any], call_next: CallNext
) -> HandlerResult:
    """Turn exceptions into MCP errors; the SDK would send clients the text of any exception."""
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


class McpTools:
    """Lists tools for MCP clients and executes their calls."""

    def __init__(self, registry: ToolRegistry) -> None:
        self._registry = registry

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make it from a process's resources."""
        return cls(ToolRegistry.build(resources, "mcp"))

    def list_tools(self, caller: Caller) -> types.ListToolsResult:
        """Return the tools that a caller has the grants for."""
        verbs = frozenset(filter(caller.confined.may, Verb))
        options = ToolOptions(verbs=verbs, is_confined=bool(caller.namespace))
        definitions = definitions_of(self._registry.tools, options)
        return types.ListToolsResult(
            tools=[types.Tool.model_validate(one.in_format("mcp")) for one in definitions]
        )

    async def call(
        self, caller: Caller, name: str, arguments: Mapping[str, Any] | None
    ) -> types.CallToolResult:
        """Execute a call; every error is a result that the model can read."""
        tool = self._registry.get(name)
        if tool is None:
            known = ", ".join(self._registry.names)
            return _refuse(f"There is no tool {name[:100]!r}; there are {known}.")
        context = ToolContext(access=caller.access, namespace=caller.namespace)
        try:
            result = await tool.call(context, dict(arguments or {}))
        except ToolError as error:
            return _refuse(str(error))
        except AppError as error:
            return _refuse(error.detail)
        except Exception:  # a bug must end only the call, not the connection
            _logger.exception("tool failed", tool=name)
            return _refuse(_TOOL_FAILED)
        structured = result.artifact if isinstance(result.artifact, dict) else None
        return types.CallToolResult(
            content=[types.TextContent(text=result.content)], structured_content=structured
        )


def _refuse(text: str) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(text=text)], is_error=True)
