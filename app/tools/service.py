"""The tools of each toolset, and calls of them that an application forwards."""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Self

from app.auth.access import Access, Verb
from app.auth.errors import ForbiddenError
from app.conversations.kinds import BUILT_IN, Kind
from app.errors import InvalidRequestError
from app.managers.schemas import ManagerConfig
from app.managers.service import ManagerService
from app.namespaces import parse_labels
from app.resources import Resources
from app.store.types import Ttl
from app.tools.manage_memory import ManageMemory
from app.tools.memory_files import MemoryFiles
from app.tools.memory_tools import (
    ExtractMemories,
    ForgetMemory,
    ListNamespaces,
    Remember,
    SearchMemories,
    UpdateMemory,
)
from app.tools.namespace_target import resolve_namespace
from app.tools.schemas import CallTool, ListTools
from app.tools.search import SearchMemory
from app.tools.tool import (
    ACTIONS,
    Action,
    Tool,
    ToolContext,
    ToolDefinition,
    ToolError,
    ToolNotFoundError,
    ToolOptions,
    ToolResult,
    Toolset,
    read_arguments,
)

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

_VERB_SETS = ({Verb.READ}, {Verb.WRITE}, {Verb.DELETE})
"""A tool needs at least one of these in the manager's namespace."""

_VERBS: dict[Action, Verb] = {
    "create": Verb.WRITE,
    "update": Verb.WRITE,
    "delete": Verb.DELETE,
}


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


class ToolService:
    """Tools on behalf of one caller."""

    def __init__(self, registry: ToolRegistry, managers: ManagerService) -> None:
        self._registry = registry
        self._managers = managers

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make the service from a process's resources."""
        return cls(ToolRegistry.build(resources, "agents"), ManagerService.build(resources))

    async def definitions(self, access: Access, query: ListTools) -> list[ToolDefinition]:
        """Return the tools that a key may use; raises ToolNotFoundError, ManagerNotFoundError."""
        labels = parse_labels(query.namespace)
        _check_may_read(access, labels)
        tools = [self._registry.find(name) for name in query.names or self._registry.names]
        return definitions_of(tools, await self._options(access, labels, query))

    async def call(
        self, access: Access, name: str, body: CallTool, *, wait_seconds: float
    ) -> ToolResult:
        """Execute a model's call; the model's mistakes are returned as error results.

        Raises ToolNotFoundError, InvalidRequestError, ForbiddenError, and as `resolve_namespace`.
        """
        tool = self._registry.find(name)
        context = await self._context(access, body, wait_seconds)
        try:
            return await tool.call(context, read_arguments(body.arguments))
        except ToolError as error:
            return ToolResult(str(error), is_error=True)

    async def _options(
        self, access: Access, labels: Sequence[str], query: ListTools
    ) -> ToolOptions:
        config = None
        if query.manager is not None:
            verb_sets = () if labels else _VERB_SETS
            config = await self._managers.config(access, query.manager, verb_sets)
        verbs = frozenset(verb for verb in Verb if _may(access, labels, verb))
        return ToolOptions(
            verbs=verbs,
            kind=_kind_of(config) if query.kind is None else BUILT_IN[query.kind],
            actions=tuple(
                action for action in query.actions_permitted or ACTIONS if _VERBS[action] in verbs
            ),
            instructions=query.instructions,
        )

    async def _context(self, access: Access, body: CallTool, wait_seconds: float) -> ToolContext:
        config, namespace = await resolve_namespace(self._managers, access, body, _VERB_SETS)
        if body.query_model is not None and body.messages is None:
            raise InvalidRequestError(
                "query_model is given without messages; send the conversation that it is to "
                "search for, or leave it out.",
                field="query_model",
            )
        return ToolContext(
            access=access,
            namespace=namespace,
            kind=_kind_of(config) if body.kind is None else body.kind.to_kind(),
            actions=tuple(body.actions_permitted or ACTIONS),
            manager=body.manager,
            ttl=_ttl_of(config),
            messages=body.messages or (),
            query_model=body.query_model or (None if config is None else config.query_model),
            wait_seconds=wait_seconds,
        )


def _kind_of(config: ManagerConfig | None) -> Kind | None:
    return None if config is None else config.resolve_kinds()[0]


def _ttl_of(config: ManagerConfig | None) -> timedelta | Ttl:
    if config is None or config.ttl_seconds is None:
        return Ttl.DEFAULT
    return timedelta(seconds=config.ttl_seconds)


def _may(access: Access, labels: Sequence[str], verb: Verb) -> bool:
    """Return whether a key has a verb in a namespace, or anywhere if no namespace is named."""
    return access.allows(labels, verb) if labels else access.may(verb)


def _check_may_read(access: Access, labels: list[str]) -> None:
    """Raise ForbiddenError unless a key may read in a namespace, or anywhere if none is named."""
    if not _may(access, labels, Verb.READ):
        raise ForbiddenError(access.actor, Verb.READ, labels)
