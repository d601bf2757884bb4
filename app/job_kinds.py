"""The registry of job kinds: the one place where each kind's planner and handler are put together.

The routes that submit jobs take a kind's `plan`; workers take its `handler`.
"""

from collections.abc import Mapping
from typing import Any

from app.auth.access import Access
from app.consolidation.plan import ConsolidatePlan, ConsolidatePlanner, ConsolidateRequest
from app.consolidation.task import ConsolidateHandler
from app.extraction.plan import ExtractPlan, ExtractPlanner, ExtractRequest
from app.extraction.task import ExtractHandler
from app.jobs.kind import JobKind, RunJob
from app.jobs.record import NewJob
from app.prompts.job_schemas import OptimizePrompt
from app.prompts.plan import OptimizePlan, OptimizePlanner
from app.prompts.task import OptimizeHandler
from app.resources import Resources
from app.threads.schedule import ThreadExtractPlan
from app.threads.summary_plan import SummarizeRequest, plan_summarize
from app.threads.summary_task import SummarizeHandler
from app.threads.task import ThreadExtractHandler
from app.tools.schemas import SearchPlan
from app.tools.search import SearchHandler, plan_search


async def _plan_extract(resources: Resources, access: Access, body: ExtractRequest) -> NewJob:
    return await ExtractPlanner.build(resources).plan_job(access, body.to_command())


async def _plan_consolidate(
    resources: Resources, access: Access, body: ConsolidateRequest
) -> NewJob:
    return await ConsolidatePlanner.build(resources).plan_job(access, body.to_command())


async def _plan_optimize(resources: Resources, access: Access, body: OptimizePrompt) -> NewJob:
    return await OptimizePlanner.build(resources).plan(access, body)


EXTRACT = JobKind(ExtractPlan, ExtractHandler.build, plan=_plan_extract)
CONSOLIDATE = JobKind(ConsolidatePlan, ConsolidateHandler.build, plan=_plan_consolidate)
SUMMARIZE = JobKind(SummarizeRequest, SummarizeHandler.build, plan=plan_summarize)
OPTIMIZE_PROMPT = JobKind(OptimizePlan, OptimizeHandler.build, plan=_plan_optimize)
SEARCH = JobKind(SearchPlan, SearchHandler.build, plan=plan_search)
EXTRACT_THREAD: JobKind[None, ThreadExtractPlan] = JobKind(
    ThreadExtractPlan, ThreadExtractHandler.build
)

KINDS: tuple[JobKind[Any, Any], ...] = (
    EXTRACT,
    CONSOLIDATE,
    SUMMARIZE,
    OPTIMIZE_PROMPT,
    SEARCH,
    EXTRACT_THREAD,
)


def handlers(resources: Resources) -> Mapping[str, RunJob]:
    """Return the functions that run jobs, by the names of their kinds."""
    return {kind.name: kind.bind(resources) for kind in KINDS}
