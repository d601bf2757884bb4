"""The tools that there are."""

from collections.abc import Mapping

from app.resources import Resources
from app.tools.base import AgentTool


def agent_tools(resources: Resources) -> Mapping[str, AgentTool]:
    """Return the tools by name."""
    tools: tuple[AgentTool, ...] = ()
    return {tool.name: tool for tool in tools}
