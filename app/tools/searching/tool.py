"""The tool `search_memory`: an agent's model looks memories up."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Self

import orjson
from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from app.conversations.content import unquoted
from app.db.database import Database
from app.db.pages import TOOL_BYTES
from app.jobs.job import State
from app.jobs.service import JobService
from app.providers.llm.pool import LLMPool
from app.resources import Resources
from app.search.plan import DEFAULT_LIMIT, SearchQuery
from app.search.schemas import MAX_LIMIT as MOST_FOUND
from app.search.schemas import QueryText, encode_page
from app.search.service import SearchService
from app.store.filters import InvalidFilterError, parse_filter
from app.tools.arguments import mistakes
from app.tools.base import Answer, Bound, Definition, Offer, ToolError
from app.tools.searching.planning import planned
from app.tools.searching.schemas import MAX_LIMIT

NAME = "search_memory"

MAX_OFFSET = 1_000

_SHOWN = ("namespace", "key", "value", "created_at", "updated_at", "score")
"""What LangMem tells of an item."""


class _Arguments(BaseModel):
    """What a model may ask for; what it adds is not looked at."""

    query: QueryText
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT)] | None = None
    offset: Annotated[int, Field(ge=0, le=MAX_OFFSET)] | None = None
    filter: Annotated[dict[str, Any] | None, BeforeValidator(unquoted)] = None

    @property
    def page(self) -> slice:
        """Which of the results are wanted."""
        start = self.offset or 0
        return slice(start, start + (self.limit or DEFAULT_LIMIT))


class SearchMemory:
    """Finds memories at and below the namespace that the application named."""

    name = NAME

    def __init__(
        self, search: SearchService, jobs: JobService, database: Database, llms: LLMPool
    ) -> None:
        self._search = search
        self._jobs = jobs
        self._database = database
        self._llms = llms

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make it from a process's resources."""
        return cls(
            SearchService.build(resources),
            JobService.build(resources),
            resources.database,
            resources.llms,
        )

    def definition(self, offer: Offer) -> Definition:
        """Return how the tool is offered, whatever may be done with memories."""
        example = {"kind": offer.kind.name} if offer.kind else {"content": {"$contains": "tea"}}
        described = f"Only memories whose members are like this: {json.dumps(example)}."
        properties = {**_PROPERTIES, "filter": {**_FILTER, "description": described}}
        parameters = {"type": "object", "properties": properties, "required": ["query"]}
        return Definition(NAME, _DESCRIPTION, parameters)

    async def call(self, bound: Bound, arguments: dict[str, Any]) -> Answer:
        """Return the memories that a query finds, the best first."""
        wanted = _read(arguments)
        items = await (self._written if bound.messages else self._found)(bound, wanted)
        return Answer(_told(items), artifact=items)

    async def _found(self, bound: Bound, wanted: _Arguments) -> list[dict[str, Any]]:
        query = SearchQuery(
            namespace=bound.namespace,
            text=wanted.query,
            filter=wanted.filter,
            limit=wanted.limit or DEFAULT_LIMIT,
            offset=wanted.offset or 0,
        )
        page = await self._search.search(bound.access, query, max_bytes=TOOL_BYTES)
        items: list[dict[str, Any]] = encode_page(page, bound.access)["items"]
        return items

    async def _written(self, bound: Bound, wanted: _Arguments) -> list[dict[str, Any]]:
        """Return what a model's queries find, beside that of the agent's own model."""
        new = planned(
            self._llms,
            bound.access,
            bound.namespace,
            bound.messages,
            manager=bound.manager,
            query_model=bound.query_model,
            queries=[wanted.query] if wanted.query.strip() else [],
            limit=min(wanted.page.stop, MOST_FOUND),
            filter=wanted.filter,
        )
        async with self._database.transaction(bound.access.root) as connection:
            job_id = await self._jobs.create(connection, bound.access, new, urgent=True)
        row = await self._jobs.wait(bound.access, job_id, bound.wait_seconds)
        if row["state"] == State.SUCCEEDED:
            items: list[dict[str, Any]] = json.loads(row["result"])["items"]
            return items[wanted.page]
        # Why it failed is for those who run the server, not for whom the model talks with.
        ended = row["state"] in (State.FAILED, State.CANCELLED)
        problem = "failed" if ended else f"is not done after {bound.wait_seconds:g} s"
        raise ToolError(f"The search {problem} ({job_id}); go on without it.")


def _read(arguments: dict[str, Any]) -> _Arguments:
    try:
        wanted = _Arguments.model_validate(arguments)
        if wanted.filter:
            parse_filter(wanted.filter)
    except ValidationError as error:
        raise ToolError(f"Nothing was searched: {mistakes(error)}") from error
    except InvalidFilterError as error:
        raise ToolError(f"Nothing was searched: {error.detail}") from error
    return wanted


def _told(items: list[dict[str, Any]]) -> str:
    shown = [{name: item[name] for name in _SHOWN} for item in items]
    return orjson.dumps(shown).decode()


_DESCRIPTION = """\
Search your long-term memories for what may bear on the matter at hand. The answer is a list of \
memories, the best first; the key of a memory is its id."""

_PROPERTIES: Mapping[str, Any] = {
    "query": {"type": "string", "description": "What a memory might say."},
    "limit": {
        "type": "integer",
        "description": "At most this many memories.",
        "minimum": 1,
        "maximum": MAX_LIMIT,
        "default": DEFAULT_LIMIT,
    },
    "offset": {
        "type": "integer",
        "description": "Leave out the first this many, to see more.",
        "minimum": 0,
        "maximum": MAX_OFFSET,
        "default": 0,
    },
}

_FILTER: Mapping[str, Any] = {
    "type": ["object", "null"],
    "additionalProperties": True,
    "default": None,
}
