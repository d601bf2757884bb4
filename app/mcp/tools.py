"""`tools/list` and `tools/call`: the tool registry in MCP's format."""

from collections.abc import Mapping
from typing import Any, Self

import structlog
from mcp import types

from app.auth.access import Verb
from app.errors import AppError
from app.resources import Resources
from app.tools.service import ToolRegistry, definitions_of
from app.tools.tool import Caller, ToolContext, ToolError, ToolOptions

_FAILED = "memoryd failed at this; its log says why. Trying again may help."

_logger = structlog.get_logger("memoryd.mcp")


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
            return _refuse(_FAILED)
        structured = result.artifact if isinstance(result.artifact, dict) else None
        return types.CallToolResult(
            content=[types.TextContent(text=result.content)], structured_content=structured
        )


def _refuse(text: str) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(text=text)], is_error=True)
