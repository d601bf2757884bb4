"""The tools that there are."""

from collections.abc import Mapping

from app.resources import Resources
from app.tools.base import AgentTool
from app.tools.files.tool import MemoryFiles
from app.tools.managing.tool import ManageMemory
from app.tools.searching.tool import SearchMemory


def agent_tools(resources: Resources) -> Mapping[str, AgentTool]:
    """Return the tools by name."""
    tools: tuple[AgentTool, ...] = (
        ManageMemory.build(resources),
        SearchMemory.build(resources),
        MemoryFiles.build(resources),
    )
    return {tool.name: tool for tool in tools}
