"""The job that improves prompts: optimize, evaluate, and store what passed."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Self, assert_never

from app.background import run_together
from app.changes.apply import access_for_job
from app.conversations.dialogue import Ask, NoAnswerError
from app.db.database import Connection, Database
from app.jobs.kind import JobFailedError, JobRun
from app.prompts.diff import unified_diff
from app.prompts.evaluate import Evaluation, Gate
from app.prompts.optimize.choose import choose_prompts
from app.prompts.optimize.gradient import GradientOptimizer
from app.prompts.optimize.metaprompt import MetaPromptOptimizer
from app.prompts.optimize.prompt_memory import PromptMemoryOptimizer
from app.prompts.optimize.types import (
    NO_CONVERSATIONS,
    Optimizer,
    OptimizerConfig,
    OptimizerKind,
    Trajectory,
)
from app.prompts.plan import OptimizePlan, PlannedEvaluation, PlannedPrompt, read_trajectories
from app.prompts.result import Improvement, Outcome, StoredText, TextWriter, to_result
from app.prompts.service import PromptService
from app.providers.llm import Completion, LLMPool, Request
from app.resources import Resources

MAX_CONCURRENT_CALLS = 4
"""Per job, so that several jobs share the provider's limits."""


class OptimizeHandler:
    """Handles jobs of the kind `optimize_prompt`."""

    def __init__(self, database: Database, llms: LLMPool, prompts: PromptService) -> None:
        self._database = database
        self._llms = llms
        self._prompts = prompts

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make the handler from a process's resources."""
        return cls(resources.database, resources.llms, PromptService.build(resources))

    async def run(self, run: JobRun, plan: OptimizePlan) -> None:
        """Improve prompts, evaluate them if requested, and store the new texts."""
        root = run.job.access.root
        async with self._database.connection(root) as connection:
            trajectories = await read_trajectories(connection, root, plan.trajectories)
        improved = await _Optimization(run, self._llms, plan).improve(trajectories)
        async with self._database.transaction(root) as connection:
            stored = await self._store(connection, run, plan, improved)
            result = [to_result(new, stored.get(new.prompt.name)) for new in improved]
            await run.finish(connection, {"prompts": result})

    async def _store(
        self,
        connection: Connection,
        run: JobRun,
        plan: OptimizePlan,
        improved: Sequence[Improvement],
    ) -> Mapping[str, StoredText]:
        """Store new texts of stored prompts; by name, the order in which prompts are locked."""
        writer = TextWriter(
            self._prompts,
            connection,
            access_for_job(run.job.access, run.job.id),
            promote=plan.evaluation is not None and plan.evaluation.promote,
        )
        new = [one for one in improved if one.outcome == "improved" and one.prompt.version]
        by_name = sorted(new, key=lambda one: one.prompt.name)
        return {one.prompt.name: await writer.store(one) for one in by_name}


class _Optimization:
    """Improves and evaluates the prompts of one job, and reports its progress."""

    def __init__(self, run: JobRun, llms: LLMPool, plan: OptimizePlan) -> None:
        self._run = run
        self._llms = llms
        self._plan = plan
        self._slots = asyncio.Semaphore(MAX_CONCURRENT_CALLS)

    async def improve(self, trajectories: Sequence[Trajectory]) -> list[Improvement]:
        """Return the outcome for each prompt; raises the errors of asking the models."""
        prompts = self._plan.prompts
        if not trajectories:
            return [_unchanged(prompt, "not_warranted", NO_CONVERSATIONS) for prompt in prompts]
        ask = self._ask(self._plan.model)
        chosen, why = await _choose(ask, prompts, trajectories)
        await self._run.report("selected", prompts=chosen, total=len(prompts))
        optimizer = build_optimizer(self._plan.kind, self._plan.config, ask)
        improved = await run_together(
            *(self._improve(optimizer, p, trajectories) for p in prompts if p.name in chosen)
        )
        by_name = {one.prompt.name: one for one in improved}
        return [by_name.get(p.name) or _unchanged(p, "not_chosen", why) for p in prompts]

    async def _improve(
        self, optimizer: Optimizer, prompt: PlannedPrompt, trajectories: Sequence[Trajectory]
    ) -> Improvement:
        optimization = await optimizer.optimize(prompt.to_target(), trajectories)
        new = Improvement(
            prompt=prompt,
            outcome=optimization.outcome,
            text=prompt.text if optimization.text is None else optimization.text,
            analysis=optimization.analysis,
            reason=optimization.reason,
        )
        await self._run.report("optimized", prompt=prompt.name, outcome=new.outcome)
        if new.outcome != "improved":
            return new
        evaluation = self._plan.evaluation
        return replace(
            new,
            diff=await asyncio.to_thread(unified_diff, prompt.text, new.text, "old", "new"),
            evaluation=await self._evaluate(new, evaluation) if evaluation else None,
        )

    async def _evaluate(self, new: Improvement, plan: PlannedEvaluation) -> Evaluation | None:
        cases = [case.to_case() for case in plan.cases_of(new.prompt.name)]
        if not cases:
            return None
        gate = Gate(answers=self._ask(plan.model), judge=self._ask(plan.judge))
        evaluation = await gate.evaluate(new.prompt.text, new.text, cases, plan.margin)
        await self._run.report(
            "evaluated",
            prompt=new.prompt.name,
            net_win_rate=evaluation.net_win_rate,
            passed=evaluation.passed,
        )
        return evaluation

    def _ask(self, model: str | None) -> Ask:
        return limit_calls(self._run.asking(self._llms.get(model)), self._slots)


def limit_calls(ask: Ask, slots: asyncio.Semaphore) -> Ask:
    """Return an `Ask` that waits for a free slot."""

    async def ask_in_slot(request: Request, purpose: str) -> Completion:
        async with slots:
            return await ask(request, purpose)

    return ask_in_slot


async def _choose(
    ask: Ask, prompts: Sequence[PlannedPrompt], trajectories: Sequence[Trajectory]
) -> tuple[list[str], str]:
    try:
        return await choose_prompts(ask, [prompt.to_target() for prompt in prompts], trajectories)
    except NoAnswerError as error:
        raise JobFailedError("invalid_output", f"No prompt was chosen: {error}.") from error


def build_optimizer(kind: OptimizerKind, config: OptimizerConfig, ask: Ask) -> Optimizer:
    """Return the optimizer of a kind."""
    match kind:
        case "gradient":
            return GradientOptimizer(config, ask)
        case "metaprompt":
            return MetaPromptOptimizer(config, ask)
        case "prompt_memory":
            return PromptMemoryOptimizer(ask)
        case _:
            assert_never(kind)


def _unchanged(prompt: PlannedPrompt, outcome: Outcome, reason: str) -> Improvement:
    return Improvement(prompt, outcome, prompt.text, reason=reason)
