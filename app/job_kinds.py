"""The registry of job kinds: the one place where each kind's planner and handler are put together.

The routes that submit jobs take a kind's `plan`; workers take its `handler`.
"""

from collections.abc import Mapping
from typing import Any

from app.consolidation.plan import ConsolidatePlan, plan_consolidate
from app.consolidation.task import ConsolidateHandler
from app.extraction.plan import ExtractPlan, plan_extract
from app.extraction.task import ExtractHandler
from app.jobs.kind import JobKind, RunJob
from app.prompts.plan import OptimizePlan, plan_optimize
from app.prompts.task import OptimizeHandler
from app.resources import Resources
from app.threads.schedule import ThreadExtractPlan
from app.threads.summary_plan import SummarizeRequest, plan_summarize
from app.threads.summary_task import SummarizeHandler
from app.threads.task import ThreadExtractHandler
from app.tools.schemas import SearchPlan
from app.tools.search import SearchHandler, plan_search

EXTRACT = JobKind(ExtractPlan, ExtractHandler.build, plan=plan_extract)
CONSOLIDATE = JobKind(ConsolidatePlan, ConsolidateHandler, plan=plan_consolidate)
SUMMARIZE = JobKind(SummarizeRequest, SummarizeHandler.build, plan=plan_summarize)
OPTIMIZE_PROMPT = JobKind(OptimizePlan, OptimizeHandler.build, plan=plan_optimize)
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
