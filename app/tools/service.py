"""Offering tools, and calling them for a model."""

from collections.abc import Mapping
from typing import Self

from app.auth.access import Access, Verb
from app.auth.errors import ForbiddenError
from app.managers.service import ManagerService
from app.namespaces import parse_labels
from app.resources import Resources
from app.tools.arguments import read_arguments
from app.tools.base import AgentTool, Answer, Definition, ToolError
from app.tools.binding import bound, offered
from app.tools.errors import ToolNotFoundError
from app.tools.registry import agent_tools
from app.tools.schemas import CallTool, ListTools


class ToolService:
    """Tools on behalf of one caller."""

    def __init__(self, tools: Mapping[str, AgentTool], managers: ManagerService) -> None:
        self._tools = tools
        self._managers = managers

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make the service from a process's resources."""
        return cls(agent_tools(resources), ManagerService.build(resources))

    async def list(self, access: Access, query: ListTools) -> list[Definition]:
        """Return the tools that a key may use; raises ToolNotFoundError, ManagerNotFoundError."""
        _check_reading(access, parse_labels(query.namespace))
        tools = [self._tool(name) for name in query.names or self._tools]
        offer = await offered(self._managers, access, query)
        definitions = (tool.definition(offer) for tool in tools)
        return [definition for definition in definitions if definition is not None]

    async def call(
        self, access: Access, name: str, body: CallTool, *, wait_seconds: float
    ) -> Answer:
        """Do what a model asks for; what it did wrong is an answer, too.

        Raises ToolNotFoundError, ForbiddenError and what `binding.bound` does.
        """
        tool = self._tool(name)
        where = await bound(self._managers, access, body, wait_seconds=wait_seconds)
        try:
            return await tool.call(where, read_arguments(body.arguments))
        except ToolError as error:
            return Answer(str(error), is_error=True)

    def _tool(self, name: str) -> AgentTool:
        if name not in self._tools:
            raise ToolNotFoundError(name, self._tools)
        return self._tools[name]


def _check_reading(access: Access, labels: list[str]) -> None:
    """Raise ForbiddenError unless a key may read in a namespace, or, without one, anywhere."""
    if labels:
        access.locate(labels, Verb.READ)
    elif not access.may(Verb.READ):
        raise ForbiddenError(access.actor, Verb.READ, labels)
