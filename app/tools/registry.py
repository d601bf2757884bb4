"""Every tool that models can call, whether an agent's program or an MCP client offers it."""

from collections.abc import Iterable
from typing import Self

from app.resources import Resources
from app.tools.errors import ToolNotFoundError
from app.tools.extract_memories import ExtractMemories
from app.tools.files.tool import MemoryFiles
from app.tools.manage_memory import ManageMemory
from app.tools.memory_tools import (
    ForgetMemory,
    ListNamespaces,
    Remember,
    SearchMemories,
    UpdateMemory,
)
from app.tools.search_memory import SearchMemory
from app.tools.tool import Tool, ToolDefinition, ToolOptions, Toolset

MEMORY_TOOLS = (
    SearchMemories,
    Remember,
    UpdateMemory,
    ForgetMemory,
    ListNamespaces,
    ExtractMemories,
)

TOOLS: tuple[type[Tool], ...] = (ManageMemory, SearchMemory, MemoryFiles, *MEMORY_TOOLS)
"""In the order in which they are listed; names differ within a toolset."""


class ToolRegistry:
    """The tools of one toolset by name."""

    def __init__(self, tools: Iterable[Tool]) -> None:
        self._tools = {tool.name: tool for tool in tools}

    @classmethod
    def build(cls, resources: Resources, toolset: Toolset) -> Self:
        """Make the registry from a process's resources."""
        return cls(tool.build(resources) for tool in TOOLS if tool.toolset == toolset)

    @property
    def names(self) -> list[str]:
        """The names of the tools."""
        return list(self._tools)

    @property
    def tools(self) -> list[Tool]:
        """The tools, in the order in which they are listed."""
        return list(self._tools.values())

    def get(self, name: str) -> Tool | None:
        """Return a tool; None if there is none of this name."""
        return self._tools.get(name)

    def find(self, name: str) -> Tool:
        """Return a tool; raises ToolNotFoundError."""
        if name not in self._tools:
            raise ToolNotFoundError(name, self._tools)
        return self._tools[name]


def definitions_of(tools: Iterable[Tool], options: ToolOptions) -> list[ToolDefinition]:
    """Return the definitions of the tools that the options leave something of."""
    definitions = (tool.definition(options) for tool in tools)
    return [definition for definition in definitions if definition is not None]
