"""Offering tools, and calling them for a model."""

import json
from collections.abc import Mapping
from typing import Any, Self

from app.auth.access import Access, Verb
from app.auth.errors import ForbiddenError
from app.managers.service import ManagerService
from app.namespaces import parse_labels
from app.resources import Resources
from app.store.errors import InvalidValueError
from app.store.values import check_json
from app.tools.base import AgentTool, Answer, Definition, ToolError
from app.tools.binding import bound, offered
from app.tools.errors import ToolNotFoundError
from app.tools.registry import agent_tools
from app.tools.schemas import CallTool, ListTools

_SHOWN = 200
"""Characters of arguments that cannot be read."""


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
            return await tool.call(where, _arguments(body.arguments))
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


def _arguments(sent: Any) -> dict[str, Any]:
    """Return a model's arguments; it may leave them out where it has none."""
    if sent is None or sent == "":
        return {}
    arguments = sent
    if isinstance(sent, str):
        try:
            arguments = json.loads(sent)
        except (ValueError, RecursionError) as error:
            raise ToolError(f"The arguments are not JSON: {sent[:_SHOWN]!r}.") from error
    try:
        check_json(arguments, "arguments")
    except InvalidValueError as error:
        raise ToolError(f"Nothing was done: {error.detail}") from error
    if not isinstance(arguments, dict):
        shown = json.dumps(arguments)[:_SHOWN]
        raise ToolError(f"The arguments are not a JSON object but {shown}.")
    return arguments
