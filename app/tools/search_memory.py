"""The tool `search_memory`: a model searches its memories."""

import json
from typing import Annotated, ClassVar, Self

import orjson
from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from app.conversations.content import parse_argument
from app.db.database import Database
from app.db.pages import TOOL_BYTES
from app.jobs.record import State
from app.jobs.service import JobService
from app.json_values import JsonObject
from app.providers.llm import LLMPool
from app.resources import Resources
from app.search.plan import DEFAULT_LIMIT, SearchQuery
from app.search.schemas import MAX_LIMIT as MAX_SEARCH_LIMIT
from app.search.schemas import QueryText, encode_page
from app.search.service import SearchService
from app.store.filters import InvalidFilterError, parse_filter
from app.tools.arguments import describe_mistakes
from app.tools.errors import ToolError
from app.tools.schemas import MAX_LIMIT, SearchPlan
from app.tools.search_job import search_job
from app.tools.tool import (
    ToolContext,
    ToolDefinition,
    ToolOptions,
    ToolResult,
    Toolset,
    tool_text,
)

NAME = "search_memory"

MAX_OFFSET = 1_000

_SHOWN_MEMBERS = ("namespace", "key", "value", "created_at", "updated_at", "score")
"""Members of an item that LangMem shows to a model."""


class _Arguments(BaseModel):
    """A model's arguments; unknown ones are ignored."""

    query: QueryText
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT)] | None = None
    offset: Annotated[int, Field(ge=0, le=MAX_OFFSET)] | None = None
    filter: Annotated[JsonObject | None, BeforeValidator(parse_argument)] = None

    @property
    def page(self) -> slice:
        """The requested part of the results."""
        start = self.offset or 0
        return slice(start, start + (self.limit or DEFAULT_LIMIT))


class SearchMemory:
    """Finds memories at and below the namespace that the application chose."""

    name: ClassVar[str] = NAME
    toolset: ClassVar[Toolset] = "agents"

    def __init__(
        self, search: SearchService, jobs: JobService, database: Database, llms: LLMPool
    ) -> None:
        self._search = search
        self._jobs = jobs
        self._database = database
        self._llms = llms

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make the tool from a process's resources."""
        return cls(
            SearchService.build(resources),
            JobService.build(resources),
            resources.database,
            resources.llms,
        )

    @classmethod
    def definition(cls, options: ToolOptions) -> ToolDefinition:
        """Return the definition, with an example filter for the kind of memory."""
        example = {"kind": options.kind.name} if options.kind else {"content": {"$contains": "tea"}}
        described = f"Only memories whose members are like this: {json.dumps(example)}."
        properties = {**_PROPERTIES, "filter": {**_FILTER, "description": described}}
        parameters = {"type": "object", "properties": properties, "required": ["query"]}
        return ToolDefinition(name=NAME, description=tool_text(NAME), input_schema=parameters)

    async def call(self, context: ToolContext, arguments: JsonObject) -> ToolResult:
        """Return the memories that a query finds, best first; raises ToolError, ForbiddenError."""
        search = self._search_with_job if context.messages else self._search_once
        items = await search(context, _read(arguments))
        return ToolResult(_show(items), artifact=items)

    async def _search_once(self, context: ToolContext, arguments: _Arguments) -> list[JsonObject]:
        query = SearchQuery(
            namespace=context.namespace,
            text=arguments.query,
            filter=arguments.filter,
            limit=arguments.limit or DEFAULT_LIMIT,
            offset=arguments.offset or 0,
        )
        page = await self._search.search(context.access, query, max_bytes=TOOL_BYTES)
        items: list[JsonObject] = encode_page(page, context.access)["items"]
        return items

    async def _search_with_job(
        self, context: ToolContext, arguments: _Arguments
    ) -> list[JsonObject]:
        """Return the hits of a model's queries and of the agent's own query."""
        plan = SearchPlan(
            namespace=list(context.namespace),
            messages=list(context.messages),
            query_model=context.query_model,
            queries=[arguments.query] if arguments.query.strip() else [],
            limit=min(arguments.page.stop, MAX_SEARCH_LIMIT),
            filter=arguments.filter,
        )
        new = search_job(self._llms, context.access, plan, manager=context.manager)
        async with self._database.transaction(context.access.root) as connection:
            job_id = await self._jobs.create(connection, context.access, new, urgent=True)
        job = await self._jobs.wait(context.access, job_id, context.wait_seconds)
        if job.state is State.SUCCEEDED:
            items: list[JsonObject] = job.result_object["items"]
            return items[arguments.page]
        # The reason for a failure is for operators, not for the user the model talks with.
        ended = job.state in (State.FAILED, State.CANCELLED)
        problem = "failed" if ended else f"is not done after {context.wait_seconds:g} s"
        raise ToolError(f"The search {problem} ({job_id}); go on without it.")


def _read(arguments: JsonObject) -> _Arguments:
    try:
        read = _Arguments.model_validate(arguments)
        if read.filter:
            parse_filter(read.filter)
    except ValidationError as error:
        raise ToolError(f"Nothing was searched: {describe_mistakes(error)}") from error
    except InvalidFilterError as error:
        raise ToolError(f"Nothing was searched: {error.detail}") from error
    return read


def _show(items: list[JsonObject]) -> str:
    shown = [{name: item[name] for name in _SHOWN_MEMBERS} for item in items]
    return orjson.dumps(shown).decode()


_PROPERTIES: JsonObject = {
    "query": {"type": "string", "description": tool_text("search_memory_query")},
    "limit": {
        "type": "integer",
        "description": tool_text("search_memory_limit"),
        "minimum": 1,
        "maximum": MAX_LIMIT,
        "default": DEFAULT_LIMIT,
    },
    "offset": {
        "type": "integer",
        "description": tool_text("search_memory_offset"),
        "minimum": 0,
        "maximum": MAX_OFFSET,
        "default": 0,
    },
}

_FILTER: JsonObject = {
    "type": ["object", "null"],
    "additionalProperties": True,
    "default": None,
}
