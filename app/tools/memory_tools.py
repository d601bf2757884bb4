"""Tools for MCP clients: their models may choose a namespace below the caller's."""

import json
from abc import ABC, abstractmethod
from dataclasses import replace
from functools import cache
from typing import ClassVar, Generic, Self, TypeVar

from pydantic import BaseModel, ValidationError
from typing_extensions import override

from app.auth.access import Access, Verb
from app.changes.repository import ChangeState
from app.changes.review import ReviewService
from app.conversations.messages import ConversationMessage
from app.db.database import Database, retry_optimistically
from app.db.pages import TOOL_BYTES
from app.extraction.plan import ExtractCommand, ExtractPlanner
from app.http.headers import (
    PRESENT,
    UNCONDITIONAL,
    Precondition,
    PreconditionFailedError,
)
from app.jobs.record import FINISHED, State
from app.jobs.service import JobService
from app.json_values import JsonObject
from app.namespaces import Labels
from app.resources import Resources
from app.search.plan import SearchQuery
from app.search.service import SearchService
from app.store.namespace_repository import NamespaceQuery
from app.store.service import ItemService
from app.store.types import Address, Delete, Item, ItemMetadata, ItemNotFoundError, Patch
from app.store.writer import ItemWriter
from app.tools.budget import (
    MAX_RESULT_CHARACTERS,
    count_fitting,
    fair_limit,
    json_length,
    shorten,
)
from app.tools.memories import TEMPLATE, memory_id, parse_id, replace_content
from app.tools.memory_schemas import (
    DEFAULT_LIMIT,
    MAX_NAMESPACES,
    ExtractedChange,
    ExtractionResult,
    ExtractMemoriesArguments,
    ForgetMemoryArguments,
    ListNamespacesArguments,
    Memory,
    MemoryList,
    MemoryReference,
    NamespaceCount,
    NamespaceList,
    RememberArguments,
    RememberedMemory,
    SearchMemoriesArguments,
    UpdateMemoryArguments,
    plain_schema,
)
from app.tools.new_memories import NewMemories, NewMemory
from app.tools.tool import (
    Caller,
    MemoryNotFoundError,
    ToolContext,
    ToolDefinition,
    ToolError,
    ToolOptions,
    ToolResult,
    Toolset,
    describe_mistakes,
    tool_text,
    validate_arguments,
)

Arguments = TypeVar("Arguments", bound=BaseModel)

DEFAULT_NAMESPACE = ("memories",)
"""Namespace of memories if neither the caller nor the model names one."""

WAIT_SECONDS = 50
"""Most MCP clients give up a call after a minute; the job continues without them."""

MAX_CHANGES = 100

_MORE_NAMESPACES = "More were left out; list those below one of these, with it as prefix."

_KNOWN = (
    "This was already remembered, so nothing was added. update_memory changes its text or "
    "importance."
)
_SIMILAR = "There is a similar memory, {}; if both say the same, forget one of them."


class MemoryTool(ABC, Generic[Arguments]):
    """A tool with typed arguments and results; it is offered to keys that have its verbs."""

    toolset: ClassVar[Toolset] = "mcp"
    name: ClassVar[str]
    title: ClassVar[str]
    verbs: ClassVar[frozenset[Verb]]
    arguments: type[Arguments]
    result: ClassVar[type[BaseModel]]
    is_read_only: ClassVar[bool] = False
    is_destructive: ClassVar[bool] = False
    is_idempotent: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def build(cls, resources: Resources) -> Self:
        """Make the tool from a process's resources."""

    @classmethod
    def definition(cls, options: ToolOptions) -> ToolDefinition | None:
        """Return the definition; None if the key lacks one of the verbs."""
        if not cls.verbs <= options.verbs:
            return None
        return cls._define(is_confined=options.is_confined)

    async def call(self, context: ToolContext, arguments: JsonObject) -> ToolResult:
        """Execute a call; raises ToolError and AppError."""
        if context.namespace and "namespace" in arguments:
            raise ToolError("This connection has a namespace of its own: leave namespace out.")
        try:
            read = validate_arguments(self.arguments.model_validate, arguments)
        except ValidationError as error:
            raise ToolError(describe_mistakes(error)) from error
        result = await self.run(context, read)
        members = result.model_dump(mode="json", exclude_none=True)
        return ToolResult(result.model_dump_json(exclude_none=True), artifact=members)

    @abstractmethod
    async def run(self, context: ToolContext, arguments: Arguments) -> BaseModel:
        """Execute a call with valid arguments."""

    @classmethod
    @cache
    def _define(cls, *, is_confined: bool) -> ToolDefinition:
        annotations = {
            "title": cls.title,
            "readOnlyHint": cls.is_read_only,
            "destructiveHint": cls.is_destructive,
            "idempotentHint": cls.is_idempotent or cls.is_read_only,
            "openWorldHint": False,
        }
        return ToolDefinition(
            name=cls.name,
            description=tool_text(cls.name),
            input_schema=plain_schema(cls.arguments, without="namespace" if is_confined else None),
            mcp={
                "title": cls.title,
                "outputSchema": plain_schema(cls.result),
                "annotations": annotations,
            },
        )


class SearchMemories(MemoryTool[SearchMemoriesArguments]):
    """Finds memories by meaning and words, or lists the newest."""

    name = "search_memories"
    title = "Search memories"
    verbs = frozenset({Verb.READ})
    arguments = SearchMemoriesArguments
    result = MemoryList
    is_read_only = True

    def __init__(self, search: SearchService) -> None:
        self._search = search

    @override
    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make the tool from a process's resources."""
        return cls(SearchService.build(resources))

    @override
    async def run(self, context: ToolContext, arguments: SearchMemoriesArguments) -> MemoryList:
        """Return the memories that a query finds."""
        query = SearchQuery(
            namespace=chosen_namespace(context, arguments.namespace),
            text=arguments.query,
            filter=arguments.filter,
            limit=arguments.limit or DEFAULT_LIMIT,
        )
        page = await self._search.search(context.confined, query)
        found = [_memory(hit.item, hit.score, context.confined) for hit in page.hits]
        return _fit(found, is_whole=len(found) == query.limit or page.next_cursor is None)


def _fit(found: list[Memory], *, is_whole: bool) -> MemoryList:
    """Return as many memories as a result has room for, with long values shortened."""
    sizes = [json_length(memory.id) + json_length(memory.namespace) for memory in found]
    kept = found[: count_fitting(sizes)]
    limit = fair_limit([json_length(memory.value) for memory in kept], MAX_RESULT_CHARACTERS)
    shown = [memory.model_copy(update={"value": shorten(memory.value, limit)}) for memory in kept]
    cut = sum(new.value is not old.value for new, old in zip(shown, kept, strict=True))
    notes = []
    if cut:
        notes.append(
            f"{cut} of the memories are too long to show and were shortened, as their texts say. "
            f"Read the resource {TEMPLATE} for a whole one, or search with a smaller limit."
        )
    if len(found) > len(kept) or not is_whole:
        notes.append("More were left out; narrow the search by its namespace or filter.")
    return MemoryList(memories=shown, note=" ".join(notes) or None)


class ItemTool(MemoryTool[Arguments]):
    """A tool on the items of the store."""

    def __init__(self, items: ItemService, writer: ItemWriter) -> None:
        self._items = items
        self._writer = writer

    @override
    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make the tool from a process's resources."""
        return cls(ItemService.build(resources), ItemWriter.build(resources))


class Remember(MemoryTool[RememberArguments]):
    """Stores a text as a new memory."""

    name = "remember"
    title = "Remember"
    verbs = frozenset({Verb.WRITE})
    arguments = RememberArguments
    result = RememberedMemory

    def __init__(self, memories: NewMemories) -> None:
        self._memories = memories

    @override
    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make the tool from a process's resources."""
        return cls(NewMemories.build(resources))

    @override
    async def run(self, context: ToolContext, arguments: RememberArguments) -> RememberedMemory:
        """Store the memory, unless one there says the same; return its id."""
        labels = chosen_namespace(context, arguments.namespace)
        context.absolute(labels)  # raises ToolError if it is too deep
        metadata = ItemMetadata(importance=arguments.importance, source=context.source(self.name))
        new = NewMemory({"content": arguments.text}, metadata)
        stored = await self._memories.store(context.confined, labels, new)
        note = None if stored.is_new else _KNOWN
        if stored.similar is not None:
            note = _SIMILAR.format(memory_id(labels, stored.similar))
        return RememberedMemory(id=memory_id(labels, stored.key), note=note)


class UpdateMemory(ItemTool[UpdateMemoryArguments]):
    """Replaces a memory's text and keeps the rest of its value."""

    name = "update_memory"
    title = "Update a memory"
    verbs = frozenset({Verb.READ, Verb.WRITE})
    arguments = UpdateMemoryArguments
    result = MemoryReference
    is_destructive = True
    is_idempotent = True

    @override
    async def run(self, context: ToolContext, arguments: UpdateMemoryArguments) -> MemoryReference:
        """Update the memory; raises MemoryNotFoundError."""
        labels, key = parse_id(arguments.id)

        def change_metadata(metadata: ItemMetadata) -> ItemMetadata:
            given = arguments.importance
            importance = metadata.importance if given is None else given
            return replace(metadata, importance=importance, source=context.source(self.name))

        async def attempt() -> None:
            address = Address(context.confined.authorize(labels, Verb.READ), key)
            item = await self._items.get(context.confined, address)
            if item is None:
                raise MemoryNotFoundError(arguments.id)
            value = item.parse_value()
            changed = replace_content(arguments.id, value, None, arguments.text)
            patch = Patch(
                address,
                {name: part for name, part in changed.items() if part != value[name]},
                change_metadata,
                Precondition.at(item.version),
            )
            try:
                await self._writer.patch(context.access, patch)
            except ItemNotFoundError as error:
                raise MemoryNotFoundError(arguments.id) from error

        await retry_optimistically(attempt, on=(PreconditionFailedError,))
        return MemoryReference(id=arguments.id)


class ForgetMemory(ItemTool[ForgetMemoryArguments]):
    """Deletes a memory."""

    name = "forget_memory"
    title = "Forget a memory"
    verbs = frozenset({Verb.DELETE})
    arguments = ForgetMemoryArguments
    result = MemoryReference
    is_destructive = True

    @override
    async def run(self, context: ToolContext, arguments: ForgetMemoryArguments) -> MemoryReference:
        """Delete the memory; raises MemoryNotFoundError if the caller may read there."""
        labels, key = parse_id(arguments.id)
        address = Address(context.confined.authorize(labels, Verb.DELETE), key)
        # A caller without `read` does not learn whether the memory existed.
        may_read = context.confined.allows(labels, Verb.READ)
        delete = Delete(address, PRESENT if may_read else UNCONDITIONAL)
        try:
            await self._writer.delete(context.confined, delete)
        except PreconditionFailedError as error:
            raise MemoryNotFoundError(arguments.id) from error
        return MemoryReference(id=arguments.id)


class ListNamespaces(ItemTool[ListNamespacesArguments]):
    """Lists the namespaces that hold memories and that the caller may read."""

    name = "list_namespaces"
    title = "List namespaces"
    verbs = frozenset({Verb.READ})
    arguments = ListNamespacesArguments
    result = NamespaceList
    is_read_only = True

    @override
    async def run(self, context: ToolContext, arguments: ListNamespacesArguments) -> NamespaceList:
        """Return the namespaces below a prefix, or below everything that the caller may read."""
        prefixes = context.readable_prefixes() if arguments.prefix is None else [arguments.prefix]
        listed: list[NamespaceCount] = []
        complete = True
        for prefix in prefixes:
            query = NamespaceQuery(
                prefix=prefix, limit=MAX_NAMESPACES + 1 - len(listed), with_counts=True
            )
            found = await self._items.list_namespaces(context.confined, query, TOOL_BYTES)
            complete = complete and found.next_offset is None
            listed += [
                NamespaceCount(namespace=labels, memories=count)
                for labels, count in zip(found.labels, found.counts or (), strict=True)
            ]
        fitting = count_fitting(json_length(one.namespace) for one in listed)
        shown = listed[: min(fitting, MAX_NAMESPACES)]
        complete = complete and len(shown) == len(listed)
        note = None if complete else _MORE_NAMESPACES
        return NamespaceList(namespaces=shown, complete=complete, note=note)


def chosen_namespace(caller: Caller, labels: Labels | None) -> Labels:
    """Return the namespace that a model chose, or the default, relative to the caller's."""
    if labels is not None:
        return labels
    return () if caller.namespace else DEFAULT_NAMESPACE


def _memory(item: Item, score: float | None, access: Access) -> Memory:
    labels = access.relative(item.address.namespace)
    return Memory(
        id=memory_id(labels, item.address.key),
        namespace=labels,
        value=item.parse_value(),
        score=score,
        importance=item.metadata.importance,
        embedded=None if item.is_embedded else False,
        updated_at=item.updated_at,
    )


class ExtractMemories(MemoryTool[ExtractMemoriesArguments]):
    """Submits an extraction and waits for it."""

    name = "extract_memories"
    title = "Extract memories"
    verbs = frozenset({Verb.READ, Verb.WRITE, Verb.JOBS})
    arguments = ExtractMemoriesArguments
    result = ExtractionResult
    is_destructive = True

    def __init__(
        self, planner: ExtractPlanner, jobs: JobService, reviews: ReviewService, database: Database
    ) -> None:
        self._planner = planner
        self._jobs = jobs
        self._reviews = reviews
        self._database = database

    @override
    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make the tool from a process's resources."""
        return cls(
            ExtractPlanner.build(resources),
            JobService.build(resources),
            ReviewService.build(resources),
            resources.database,
        )

    @override
    async def run(
        self, context: ToolContext, arguments: ExtractMemoriesArguments
    ) -> ExtractionResult:
        """Return the state of the extraction and its changes; raises ToolError if it failed."""
        labels = chosen_namespace(context, arguments.namespace)
        command = ExtractCommand(
            namespace=context.absolute(labels),
            messages=[ConversationMessage(role="user", content=arguments.text)],
        )
        new = await self._planner.plan_job(context.access, command)
        async with self._database.transaction(context.access.root) as connection:
            job_id = await self._jobs.create(connection, context.access, new, urgent=True)
        job = await self._jobs.wait(context.access, job_id, WAIT_SECONDS)
        problem = job.error and job.error.detail
        if job.state in FINISHED - {State.SUCCEEDED}:
            raise ToolError(f"Nothing was learned: {problem or 'the job was ' + job.state}")
        return ExtractionResult(
            state=job.state,
            job_id=job_id,
            changes=await self._changes(context, job_id),
            problem=problem,
        )

    async def _changes(self, caller: Caller, job_id: str) -> list[ExtractedChange]:
        page = await self._reviews.list_changes(caller.access, job_id, after=0, limit=MAX_CHANGES)
        changes = (listed.change for listed in page.items)
        found = [
            ExtractedChange(
                action=change.action,
                id=memory_id(caller.confined.relative(change.namespace), change.address.key),
                value=None if change.value is None else json.loads(change.value),
            )
            for change in changes
            if change.state is not ChangeState.REJECTED
        ]
        limit = fair_limit([json_length(change.value) for change in found], MAX_RESULT_CHARACTERS)
        return [
            change.model_copy(update={"value": shorten(change.value, limit)}) for change in found
        ]
