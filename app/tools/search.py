"""The tool `search_memory`, and jobs in which a model writes the queries for a conversation.

The hits of all queries of a job are merged. The route `/v1/jobs/search` submits jobs of the kind
`search`, and so does `search_memory` if it is given messages.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Self

import orjson
from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from app.auth.access import Access, Verb
from app.conversations.memories import parse_argument
from app.conversations.messages import Turn, to_turns
from app.conversations.prompt_text import CONVERSATION_TAGS
from app.db.database import Database
from app.db.pages import TOOL_BYTES
from app.extraction.prompt import TEMPLATES as EXTRACTION_TEMPLATES
from app.extraction.retrieval import MAX_QUERIES, ask_for_queries, split_into_queries
from app.jobs.kind import JobRun
from app.jobs.record import NewJob, State
from app.jobs.service import JobService
from app.json_values import JsonObject
from app.managers.service import ManagerService
from app.providers.llm import Completion, LLMPool, Request
from app.resources import Resources
from app.search.hits import Hit, SearchPage
from app.search.plan import DEFAULT_LIMIT as DEFAULT_SEARCH_LIMIT
from app.search.plan import SearchQuery
from app.search.schemas import MAX_LIMIT as MAX_SEARCH_LIMIT
from app.search.schemas import QueryText, encode_page
from app.search.service import SearchService
from app.store.filters import InvalidFilterError, parse_filter
from app.tools.budget import (
    MAX_RESULT_CHARACTERS,
    count_fitting,
    fair_limit,
    json_length,
    shorten,
)
from app.tools.namespace_target import resolve_namespace
from app.tools.schemas import DEFAULT_LIMIT, MAX_LIMIT, SearchPlan, SearchRequest
from app.tools.tool import (
    TEMPLATES,
    ToolContext,
    ToolDefinition,
    ToolError,
    ToolOptions,
    ToolResult,
    Toolset,
    describe_mistakes,
    tool_text,
)

MAX_BYTES = 4_194_304
"""Maximum bytes of the values in a job's result."""

_VERB_SETS = ({Verb.JOBS, Verb.READ},)

NAME = "search_memory"

MAX_OFFSET = 1_000

_SHOWN_MEMBERS = ("namespace", "key", "value", "created_at", "updated_at", "score", "embedded")
"""Members of an item that LangMem shows to a model, and `embedded` if it is false."""

_PROPERTIES: JsonObject = {
    "query": {"type": "string", "description": tool_text("search_memory_query")},
    "limit": {
        "type": "integer",
        "description": tool_text("search_memory_limit"),
        "minimum": 1,
        "maximum": MAX_LIMIT,
        "default": DEFAULT_SEARCH_LIMIT,
    },
    "offset": {
        "type": "integer",
        "description": tool_text("search_memory_offset"),
        "minimum": 0,
        "maximum": MAX_OFFSET,
        "default": 0,
    },
}


async def plan_search(resources: Resources, access: Access, body: SearchRequest) -> NewJob:
    """Return the job for a request; raises as `resolve_namespace` and `search_job`."""
    managers = ManagerService.build(resources)
    config, namespace = await resolve_namespace(managers, access, body, _VERB_SETS)
    plan = SearchPlan(
        namespace=namespace,
        messages=body.messages,
        query_model=body.query_model or (None if config is None else config.query_model),
        instructions=body.instructions,
        limit=body.limit or DEFAULT_LIMIT,
        filter=body.filter,
    )
    return search_job(resources.llms, access, plan, manager=body.manager)


def search_job(llms: LLMPool, access: Access, plan: SearchPlan, *, manager: str | None) -> NewJob:
    """Return a job that runs a plan, which is checked first.

    Raises ForbiddenError, InvalidMessageError, InvalidFilterError, and LLMNotConfiguredError.
    """
    access.authorize(plan.namespace, Verb.READ)
    stored = access.authorize(plan.namespace, Verb.JOBS)
    to_turns(plan.messages)
    if plan.filter:
        parse_filter(plan.filter)
    checked = plan.model_copy(update={"query_model": llms.require(plan.query_model)})
    return checked.new_job(stored, manager=manager)


def system_text(max_queries: int, instructions: str | None) -> str:
    """Return the system prompt of the model that writes the queries."""
    text = TEMPLATES.fill("search_queries", max_queries=str(max_queries))
    if not instructions or not instructions.strip():
        return text
    escaped = CONVERSATION_TAGS.escape(instructions.strip())
    return f"{text}\n\n{EXTRACTION_TEMPLATES.fill('instructions', instructions=escaped)}"


class SearchHandler:
    """Runs jobs of the kind `search`."""

    def __init__(self, database: Database, llms: LLMPool, search: SearchService) -> None:
        self._database = database
        self._llms = llms
        self._search = search

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make the handler from a process's resources."""
        return cls(resources.database, resources.llms, SearchService.build(resources))

    async def run(self, run: JobRun, plan: SearchPlan) -> None:
        """Run a job; its result has the hits of all searches, each item once, best first."""
        turns = to_turns(plan.messages)
        queries = list(dict.fromkeys([*plan.queries, *await self._write_queries(run, plan, turns)]))
        await run.report("searching", queries=queries)
        access = run.job.access
        hits, omitted = await self._search_all(access, plan, queries)
        kept = _fit(hits)
        items = encode_page(SearchPage(kept), access)["items"]
        result = {
            "queries": queries,
            "items": orjson.loads(orjson.dumps(items)),
            "omitted": omitted + len(hits) - len(kept),
            "model": self._llms.get(plan.query_model).name,
        }
        async with self._database.transaction(access.root) as connection:
            await run.finish(connection, result)

    async def _write_queries(
        self, run: JobRun, plan: SearchPlan, turns: Sequence[Turn]
    ) -> list[str]:
        """Return the model's queries; if it writes none, parts of the conversation."""
        ask = run.asking(self._llms.get(plan.query_model))
        system = system_text(MAX_QUERIES, plan.instructions)

        async def ask_with_system(request: Request, purpose: str) -> Completion:
            return await ask(replace(request, system=system), purpose)

        queries = await ask_for_queries(ask_with_system, turns, 0)
        return queries or split_into_queries(turns)[:MAX_QUERIES]

    async def _search_all(
        self, access: Access, plan: SearchPlan, queries: Iterable[str]
    ) -> tuple[list[Hit], int]:
        """Return the hits of all searches, best first, and the number of items without room."""
        plans = [
            self._search.plan(
                access,
                SearchQuery(
                    namespace=plan.namespace,
                    text=query,
                    filter=plan.filter,
                    limit=plan.limit,
                ),
            )
            for query in queries
        ]
        vectors = await self._search.embed_if_possible(plans)
        best: dict[int, Hit] = {}
        omitted: set[int] = set()
        for search, vector in zip(plans, vectors, strict=True):
            page = await self._search.run(access, search, vector)
            omitted |= page.left_out
            for hit in page.hits:
                before = best.get(hit.item.id)
                if before is None or _rank(hit) > _rank(before):
                    best[hit.item.id] = hit
        return sorted(best.values(), key=_rank, reverse=True), len(omitted - best.keys())


def _rank(hit: Hit) -> tuple[bool, float]:
    """Return the sort key of a hit: pinned items come before all others."""
    return hit.item.metadata.pinned, -1.0 if hit.score is None else hit.score


def _fit(hits: Iterable[Hit]) -> list[Hit]:
    """Return the best hits that fit into a job's result."""
    room, kept = MAX_BYTES, []
    for hit in hits:
        size = hit.item.size
        if size <= room:
            room -= size
            kept.append(hit)
    return kept


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
        return slice(start, start + (self.limit or DEFAULT_SEARCH_LIMIT))


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
        described = f"As JSON: only memories whose members are like this: {json.dumps(example)}."
        properties = {**_PROPERTIES, "filter": {"type": "string", "description": described}}
        parameters = {
            "type": "object",
            "properties": properties,
            "required": ["query"],
            "additionalProperties": False,
        }
        return ToolDefinition(name=NAME, description=tool_text(NAME), input_schema=parameters)

    async def call(self, context: ToolContext, arguments: JsonObject) -> ToolResult:
        """Return the memories that a query finds, best first; raises ToolError, ForbiddenError."""
        search = self._search_with_job if context.messages else self._search_once
        read = _read(arguments)
        items, is_whole = await search(context, read)
        return ToolResult(_show(items, read.page.start, is_whole=is_whole), artifact=items)

    async def _search_once(
        self, context: ToolContext, arguments: _Arguments
    ) -> tuple[list[JsonObject], bool]:
        """Return the hits of a query, and whether they are all that were asked for."""
        query = SearchQuery(
            namespace=context.namespace,
            text=arguments.query,
            filter=arguments.filter,
            limit=arguments.limit or DEFAULT_SEARCH_LIMIT,
            offset=arguments.offset or 0,
        )
        page = await self._search.search(context.access, query, max_bytes=TOOL_BYTES)
        items: list[JsonObject] = encode_page(page, context.access)["items"]
        return items, page.next_cursor is None or len(items) == query.limit

    async def _search_with_job(
        self, context: ToolContext, arguments: _Arguments
    ) -> tuple[list[JsonObject], bool]:
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
            return items[arguments.page], not job.result_object["omitted"]
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


def _show(items: list[JsonObject], offset: int, *, is_whole: bool) -> str:
    """Return hits as JSON for the model: as many as fit, long values shortened, and a note."""
    members = [{name: item[name] for name in _SHOWN_MEMBERS if name in item} for item in items]
    text = orjson.dumps(members).decode()
    if len(text) <= MAX_RESULT_CHARACTERS and is_whole:
        return text
    found: list[JsonObject] = orjson.loads(text)
    sizes = [json_length({**one, "value": None}) for one in found]
    kept = found[: count_fitting(sizes)]
    limit = fair_limit([json_length(one["value"]) for one in kept], MAX_RESULT_CHARACTERS)
    shown = [{**one, "value": shorten(one["value"], limit)} for one in kept]
    notes = []
    if cut := sum(new["value"] is not old["value"] for new, old in zip(shown, kept, strict=True)):
        notes.append(f"{cut} of the memories were shortened, as they say; a smaller limit or a ")
        notes.append("filter leaves more room for each.")
    if len(kept) < len(found) or not is_whole:
        notes.append(f"{' ' * bool(notes)}More were left out: search with offset ")
        notes.append(f"{offset + len(kept)} for them.")
    return orjson.dumps([*shown, {"note": "".join(notes)}] if notes else shown).decode()
