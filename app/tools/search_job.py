"""Jobs of the kind `search`: a model writes queries for a conversation, and their hits are merged.

The route `/v1/jobs/search` submits them, and so does `search_memory` if it is given messages.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Self

import orjson

from app.auth.access import Access, Verb
from app.conversations.messages import to_turns
from app.conversations.prompt_text import CONVERSATION_TAGS
from app.conversations.types import Turn
from app.db.database import Database
from app.extraction.prompt import TEMPLATES as EXTRACTION_TEMPLATES
from app.extraction.retrieval import MAX_QUERIES, ask_for_queries, split_into_queries
from app.jobs.kind import JobRun
from app.jobs.record import NewJob
from app.managers.service import ManagerService
from app.providers.llm import Completion, LLMPool, Request
from app.resources import Resources
from app.search.hits import Hit, SearchPage
from app.search.plan import SearchQuery
from app.search.schemas import encode_page
from app.search.service import SearchService
from app.store.filters import parse_filter
from app.tools.namespace_target import resolve_namespace
from app.tools.schemas import DEFAULT_LIMIT, SearchPlan, SearchRequest
from app.tools.tool import TEMPLATES

MAX_BYTES = 4_194_304
"""Maximum bytes of the values in a job's result."""

_VERB_SETS = ({Verb.JOBS, Verb.READ},)


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
        vectors = await self._search.embed(plans)
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
