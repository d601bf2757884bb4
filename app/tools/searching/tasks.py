"""Jobs of the kind `search`: a model writes queries, and what they find is put together."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Self

import orjson

from app.auth.access import Access
from app.conversations.messages import to_turns
from app.conversations.types import Turn
from app.db.database import Database
from app.extraction.queries import MAX_QUERIES, windows, written_by_model
from app.jobs.run import JobRun
from app.providers.llm.base import Completion, Request
from app.providers.llm.pool import LLMPool
from app.resources import Resources
from app.search.hits import Hit, SearchPage
from app.search.plan import SearchQuery
from app.search.schemas import encode_page
from app.search.service import SearchService
from app.tools.searching.prompt import system_text
from app.tools.searching.schemas import SearchPlan

MAX_BYTES = 4_194_304
"""Of the values that a job's result holds."""


class SearchHandler:
    """Does the jobs of the kind `search`."""

    def __init__(self, database: Database, llms: LLMPool, search: SearchService) -> None:
        self._database = database
        self._llms = llms
        self._search = search

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make the handler from a process's resources."""
        return cls(resources.database, resources.llms, SearchService.build(resources))

    async def run(self, run: JobRun, plan: SearchPlan) -> None:
        """Do a job; its result has what every search found, each item once, the best first."""
        turns = to_turns(plan.messages)
        queries = list(dict.fromkeys([*plan.queries, *await self._written(run, plan, turns)]))
        await run.report("searching", queries=queries)
        access = run.job.access
        ranked, left_out = await self._found(access, plan, queries)
        kept = _fitting(ranked)
        items = encode_page(SearchPage(kept), access)["items"]
        result = {
            "queries": queries,
            "items": orjson.loads(orjson.dumps(items)),
            "omitted": left_out + len(ranked) - len(kept),
            "model": self._llms.get(plan.query_model).name,
        }
        async with self._database.transaction(access.root) as connection:
            await run.finish(connection, result)

    async def _written(self, run: JobRun, plan: SearchPlan, turns: Sequence[Turn]) -> list[str]:
        """Return the model's queries; where it gives none, the conversation is searched with."""
        ask = run.asking(self._llms.get(plan.query_model))
        system = system_text(MAX_QUERIES, plan.instructions)

        async def ask_for_queries(request: Request, purpose: str) -> Completion:
            return await ask(replace(request, system=system), purpose)

        return await written_by_model(ask_for_queries, turns, 0) or windows(turns)[:MAX_QUERIES]

    async def _found(
        self, access: Access, plan: SearchPlan, queries: Iterable[str]
    ) -> tuple[list[Hit], int]:
        """Return what every search found, the best first, and how many items had no room."""
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
        left_out: set[int] = set()
        for search_plan, vector in zip(plans, vectors, strict=True):
            found = await self._search.run(access, search_plan, vector)
            left_out |= found.left_out
            for hit in found.hits:
                before = best.get(hit.row["id"])
                if before is None or _score(hit) > _score(before):
                    best[hit.row["id"]] = hit
        return sorted(best.values(), key=_score, reverse=True), len(left_out - best.keys())


def _score(hit: Hit) -> tuple[bool, float]:
    """Return what results are ordered by: pinned ones are found before all others."""
    return bool(hit.row["pinned"]), -1.0 if hit.score is None else hit.score


def _fitting(ranked: Iterable[Hit]) -> list[Hit]:
    """Return the best results that a job's result has room for."""
    room, kept = MAX_BYTES, []
    for hit in ranked:
        size = len(hit.row["value"].encode())
        if size <= room:
            room -= size
            kept.append(hit)
    return kept
