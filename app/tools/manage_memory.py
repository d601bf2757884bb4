"""The tool `manage_memory`: a model creates, updates, and deletes memories."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar, Self

from app.auth.access import Access, Verb
from app.clock import Clock
from app.conversations.kinds import Kind
from app.conversations.memories import read_value
from app.db.database import Database, TooManyConflictsError, retry_optimistically
from app.extraction.retrieval import DEFAULT_KEY
from app.http.headers import ABSENT, PRESENT, UNCONDITIONAL, PreconditionFailedError
from app.indexing.passages import InvalidIndexPathError
from app.json_values import JsonObject
from app.namespaces import StoredNamespace
from app.resources import Resources
from app.store import repository
from app.store.types import Address, Delete, InvalidValueError, Item, ItemMetadata, Put
from app.store.writer import ItemWriter
from app.tools.memories import (
    check_memory_content,
    content_schema,
    new_value,
    replace_content,
)
from app.tools.new_memories import NewMemories, NewMemory
from app.tools.tool import (
    Action,
    ToolContext,
    ToolDefinition,
    ToolError,
    ToolOptions,
    ToolResult,
    Toolset,
    any_of,
    tool_text,
)

NAME = "manage_memory"


class ManageMemory:
    """Writes one memory at a time, always in the namespace that the application chose."""

    name: ClassVar[str] = NAME
    toolset: ClassVar[Toolset] = "agents"

    def __init__(
        self, memories: NewMemories, writer: ItemWriter, database: Database, clock: Clock
    ) -> None:
        self._memories = memories
        self._writer = writer
        self._database = database
        self._clock = clock

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make the tool from a process's resources."""
        memories, writer = NewMemories.build(resources), ItemWriter.build(resources)
        return cls(memories, writer, resources.database, resources.clock)

    @classmethod
    def definition(cls, options: ToolOptions) -> ToolDefinition | None:
        """Return the definition with the actions that are left; None if there are none."""
        if not options.actions:
            return None
        return ToolDefinition(
            name=NAME, description=_description(options), input_schema=_parameters(options)
        )

    async def call(self, context: ToolContext, arguments: JsonObject) -> ToolResult:
        """Create, update, or delete a memory; raises ToolError, ForbiddenError."""
        action = _read_action(arguments, context.actions)
        id_ = _read_id(arguments)
        if action == "create":
            if id_ is not None:
                raise ToolError(
                    "Nothing was created: a new memory gets its id by itself. "
                    "Leave id out, or use the action update."
                )
            return await self._create(context, await _read_content(context, arguments))
        if id_ is None:
            raise ToolError(
                f"Nothing was done: to {action} a memory, send its id, "
                "which search_memory shows as key."
            )
        if action == "delete":
            await self._delete(context, id_)
            return ToolResult(f"Deleted memory {id_}")
        await self._update(context, id_, await _read_content(context, arguments))
        return ToolResult(f"updated memory {id_}")

    async def _create(self, context: ToolContext, content: str | JsonObject) -> ToolResult:
        kind = context.kind
        if kind is not None and kind.singleton:
            await self._check_is_first(context, kind)
            return await self._create_only(context, kind, content)
        metadata = ItemMetadata(source=context.source(NAME))
        new = NewMemory(new_value(kind, content), metadata, context.ttl)
        try:
            stored = await self._memories.store(context.access, context.namespace, new)
        except (InvalidValueError, InvalidIndexPathError) as error:
            raise ToolError(f"Nothing was written: {error.detail}") from error
        if not stored.is_new:
            return ToolResult(f"memory {stored.key} says this already, so nothing was created")
        return ToolResult(f"created memory {stored.key}")  # as in LangMem: programs read the key

    async def _create_only(
        self, context: ToolContext, kind: Kind, content: str | JsonObject
    ) -> ToolResult:
        """Create the only memory of a kind."""
        put = Put(
            Address(context.access.authorize(context.namespace, Verb.WRITE), kind.name),
            new_value(kind, content),
            ItemMetadata(source=context.source(NAME)),
            ttl=context.ttl,
            precondition=ABSENT,
        )
        try:
            await self._put(context.access, put)
        except PreconditionFailedError as error:  # another call came first
            raise _exists(kind.name, context.actions) from error
        return ToolResult(f"created memory {kind.name}")

    async def _update(self, context: ToolContext, key: str, content: str | JsonObject) -> None:
        # The result depends on the stored item.
        context.access.authorize(context.namespace, Verb.READ)
        address = Address(context.access.authorize(context.namespace, Verb.WRITE), key)
        try:
            await retry_optimistically(
                partial(self._replace, context, address, content), on=(PreconditionFailedError,)
            )
        except TooManyConflictsError as error:
            raise ToolError(
                f"Nothing was changed: others keep changing memory {key}. Try again."
            ) from error

    async def _replace(
        self, context: ToolContext, address: Address, content: str | JsonObject
    ) -> None:
        namespace, key = address
        item = (await self._find(context.access, namespace, [key])).get(key)
        if item is None:
            raise _unknown(context.namespace, key)
        value = replace_content(key, item.parse_value(), context.kind, content)
        metadata = replace(item.metadata, source=context.source(NAME))
        await self._put(context.access, Put.replacing(item, value=value, metadata=metadata))

    async def _delete(self, context: ToolContext, key: str) -> None:
        address = Address(context.access.authorize(context.namespace, Verb.DELETE), key)
        # A caller without `read` does not learn whether the memory existed.
        may_read = context.access.allows(context.namespace, Verb.READ)
        there = PRESENT if may_read else UNCONDITIONAL
        try:
            await self._writer.write(context.access, [Delete(address, there)])
        except PreconditionFailedError as error:
            raise _unknown(context.namespace, key) from error

    async def _check_is_first(self, context: ToolContext, kind: Kind) -> None:
        """Raise ToolError if the only memory of a kind exists already."""
        context.access.authorize(context.namespace, Verb.READ)
        namespace = context.access.authorize(context.namespace, Verb.WRITE)
        items = await self._find(context.access, namespace, [kind.name, DEFAULT_KEY])
        for key, item in items.items():
            if key == kind.name or read_value(item.parse_value())[1] == kind.name:
                raise _exists(key, context.actions)

    async def _put(self, access: Access, put: Put) -> None:
        try:
            prepared = await self._writer.prepare(access, put)
        except (InvalidValueError, InvalidIndexPathError) as error:
            raise ToolError(f"Nothing was written: {error.detail}") from error
        await self._writer.write(access, [prepared])

    async def _find(
        self, access: Access, namespace: StoredNamespace, keys: Sequence[str]
    ) -> dict[str, Item]:
        addresses = [Address(namespace, key) for key in keys]
        async with self._database.connection(access.root) as connection:
            items = await repository.find_many(connection, addresses, self._clock.now())
        return {address.key: item for address, item in items.items()}


def _description(options: ToolOptions) -> str:
    kind, actions = options.kind, options.actions
    lines = [f"{any_of(actions).capitalize()} a memory, which lasts beyond this conversation."]
    if on_existing := [action for action in actions if action != "create"]:
        lines.append(
            f"To {any_of(on_existing)} one, send its id: the key that search_memory shows."
        )
    if "update" in actions:
        lines.append("An update replaces the whole content.")
    if "create" in actions:
        lines.append("A new memory gets its id by itself; send none.")
    if kind is not None and kind.description:
        lines.append(f"A memory here is a {kind.name}: {kind.description}")
    if kind is not None and kind.singleton:
        then = "; once it exists, update it" if "update" in actions else ""
        lines.append(f"There is only one {kind.name}{then}.")
    return "\n".join([*lines, options.instructions or tool_text("manage_memory_instructions")])


def _parameters(options: ToolOptions) -> JsonObject:
    """Return LangMem's parameters; those that every action needs are `required`."""
    actions = options.actions
    required = []
    if "delete" not in actions:
        required.append("content")
    if "create" not in actions:
        required.append("id")
    content, definitions = content_schema(options.kind)
    default = "create" if "create" in actions else actions[0]
    properties = {
        "content": content,
        "action": {"type": "string", "enum": list(actions), "default": default},
        "id": {
            "type": "string",
            "description": tool_text("manage_memory_id"),
        },
    }
    schema = {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }
    return schema | ({"$defs": definitions} if definitions else {})


async def _read_content(context: ToolContext, arguments: JsonObject) -> str | JsonObject:
    """Return valid content; raises ToolError."""
    return await asyncio.to_thread(check_memory_content, arguments.get("content"), context.kind)


def _read_action(arguments: JsonObject, permitted: Sequence[Action]) -> Action:
    sent = arguments.get("action")
    if sent is None:
        return permitted[0] if "create" not in permitted else "create"
    for action in permitted:
        if action == sent:
            return action
    shown = json.dumps(sent)[:100]
    raise ToolError(f"Nothing was done: action is {shown}; it must be {any_of(permitted)}.")


def _read_id(arguments: JsonObject) -> str | None:
    id_ = arguments.get("id")
    if id_ is None or id_ == "":
        return None
    if not isinstance(id_, str):
        shown = json.dumps(id_)[:100]
        raise ToolError(f"Nothing was done: id is {shown}; send the key that search_memory shows.")
    return id_


def _unknown(namespace: Sequence[str], key: str) -> ToolError:
    return ToolError(
        f"Nothing was done: there is no memory {json.dumps(key)[:100]} in the namespace "
        f"{json.dumps(namespace, ensure_ascii=False)}, and those of other namespaces can only be "
        "read. Use search_memory to find the one you mean, and send its key as id."
    )


def _exists(key: str, permitted: Sequence[Action]) -> ToolError:
    then = (
        f"Update it: its id is {key}, and content must be the whole of it, so look at it with "
        "search_memory before."
        if "update" in permitted
        else "Leave it as it is."
    )
    return ToolError(f"Nothing was created: there is one already, and only one is kept. {then}")
