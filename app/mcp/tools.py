"""The tools: how models are told of them, and how their calls are answered."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import structlog
from mcp import types
from pydantic import BaseModel, ValidationError

from app.auth.access import Verb
from app.errors import AppError
from app.mcp import calls, extraction, schemas
from app.mcp.caller import Caller
from app.tools.arguments import mistakes
from app.tools.base import ToolError

_FAILED = "memoryd failed at this; its log says why. Trying again may help."

_logger = structlog.get_logger("memoryd.mcp")


@dataclass(frozen=True, slots=True)
class MemoryTool:
    """A tool; who may not do one of its verbs anywhere is not shown it."""

    name: str
    title: str
    description: str
    verbs: frozenset[Verb]
    arguments: type[BaseModel]
    result: type[BaseModel]
    do: Callable[[Caller, Any], Awaitable[BaseModel]]
    read_only: bool = False
    destructive: bool = False
    idempotent: bool = False

    async def call(self, caller: Caller, arguments: Mapping[str, Any]) -> BaseModel:
        """Do what a model asks for; raises ToolError and AppError."""
        if caller.namespace and "namespace" in arguments:
            raise ToolError("This connection has a namespace of its own: leave namespace out.")
        return await self.do(caller, self.arguments.model_validate(arguments))


TOOLS = (
    MemoryTool(
        name="search_memories",
        title="Search memories",
        description=(
            "Find what is remembered from earlier conversations, by meaning and by words. Use it "
            "before answering whenever the user, their preferences, people, plans or past work "
            "may matter, and before remembering something that may be known already. Without a "
            "query it lists the newest memories."
        ),
        verbs=frozenset({Verb.READ}),
        arguments=schemas.SearchMemories,
        result=schemas.Memories,
        do=calls.search_memories,
        read_only=True,
    ),
    MemoryTool(
        name="remember",
        title="Remember",
        description=(
            "Keep something for later conversations: a lasting fact, a preference, a decision, a "
            "plan, how something was solved. One thing at a time. Search first: to correct what "
            "is there, use update_memory."
        ),
        verbs=frozenset({Verb.WRITE}),
        arguments=schemas.Remember,
        result=schemas.Changed,
        do=calls.remember,
    ),
    MemoryTool(
        name="update_memory",
        title="Update a memory",
        description=(
            "Replace the text of a memory that is no longer right or says too little. The state "
            "before is kept in its history."
        ),
        verbs=frozenset({Verb.READ, Verb.WRITE}),
        arguments=schemas.UpdateMemory,
        result=schemas.Changed,
        do=calls.update_memory,
        destructive=True,
        idempotent=True,
    ),
    MemoryTool(
        name="forget_memory",
        title="Forget a memory",
        description=(
            "Delete a memory: one that is wrong, outdated or a repetition, or that the user wants "
            "to be forgotten. Its history stays with whoever runs the server."
        ),
        verbs=frozenset({Verb.DELETE}),
        arguments=schemas.ForgetMemory,
        result=schemas.Changed,
        do=calls.forget_memory,
        destructive=True,
    ),
    MemoryTool(
        name="list_namespaces",
        title="List namespaces",
        description="See in which namespaces memories are kept, and how many each one holds.",
        verbs=frozenset({Verb.READ}),
        arguments=schemas.ListNamespaces,
        result=schemas.Namespaces,
        do=calls.list_namespaces,
        read_only=True,
    ),
    MemoryTool(
        name="extract_memories",
        title="Learn from a text",
        description=(
            "Let a language model read a longer text, such as a conversation, notes or a "
            "document, and keep what is worth remembering: it adds memories and corrects those "
            "that the text outdates. Takes seconds to minutes. For a single fact use remember."
        ),
        verbs=frozenset({Verb.READ, Verb.WRITE, Verb.JOBS}),
        arguments=schemas.ExtractMemories,
        result=schemas.Extraction,
        do=extraction.extract_memories,
        destructive=True,
    ),
)

_BY_NAME = {tool.name: tool for tool in TOOLS}


def listed(caller: Caller) -> list[types.Tool]:
    """Return the tools that a caller has the grants for."""
    access = caller.confined
    return [
        _definition(tool.name, confined=bool(caller.namespace))
        for tool in TOOLS
        if all(map(access.may, tool.verbs))
    ]


async def call(
    caller: Caller, name: str, arguments: Mapping[str, Any] | None
) -> types.CallToolResult:
    """Answer a call; whatever goes wrong is said in the result, for the model to read."""
    try:
        result = await _find(name).call(caller, arguments or {})
    except ToolError as error:
        return _refusal(str(error))
    except ValidationError as error:
        return _refusal(mistakes(error))
    except AppError as error:
        return _refusal(error.detail)
    except Exception:  # a mistake of ours costs the call, not the connection
        _logger.exception("tool failed", tool=name)
        return _refusal(_FAILED)
    return types.CallToolResult(
        content=[types.TextContent(text=result.model_dump_json(exclude_none=True))],
        structured_content=result.model_dump(mode="json", exclude_none=True),
    )


def _find(name: str) -> MemoryTool:
    if name not in _BY_NAME:
        raise ToolError(f"There is no tool {name[:100]!r}; there are {', '.join(_BY_NAME)}.")
    return _BY_NAME[name]


def _refusal(text: str) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(text=text)], is_error=True)


@cache
def _definition(name: str, *, confined: bool) -> types.Tool:
    tool = _BY_NAME[name]
    return types.Tool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=schemas.plain_schema(
            tool.arguments, without="namespace" if confined else None
        ),
        output_schema=schemas.plain_schema(tool.result),
        annotations=types.ToolAnnotations(
            title=tool.title,
            read_only_hint=tool.read_only,
            destructive_hint=tool.destructive,
            idempotent_hint=tool.idempotent or tool.read_only,
            open_world_hint=False,
        ),
    )
