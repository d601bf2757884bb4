"""What becomes of the prompts of a job, before anything is stored."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from app.conversations.types import Ask
from app.jobs.run import JobRun
from app.prompts.diff import unified_diff
from app.prompts.evaluation.gate import Evaluation, Gate
from app.prompts.jobs.plans import OptimizePlan, PlannedEvaluation, PlannedPrompt
from app.prompts.optimizing.answers import NO_CONVERSATIONS
from app.prompts.optimizing.base import Optimizer, Trajectory
from app.prompts.optimizing.choosing import choose
from app.prompts.optimizing.registry import optimizer
from app.prompts.together import limited, together
from app.providers.llm.pool import LLMPool

CALLS_AT_ONCE = 4
"""Of one job, so that several jobs share what a provider allows."""

Outcome: TypeAlias = Literal["improved", "not_warranted", "not_chosen", "rejected"]


@dataclass(frozen=True, slots=True)
class Improvement:
    """What came of a prompt; `text` is the new one, or the old where nothing changes.

    `diff` has the changed lines in unified form.
    """

    prompt: PlannedPrompt
    outcome: Outcome
    text: str
    analysis: str | None = None
    reason: str | None = None
    diff: str = ""
    evaluation: Evaluation | None = None


class Improver:
    """Improves and tries the prompts of one job, which hears how far it has come."""

    def __init__(self, run: JobRun, llms: LLMPool, plan: OptimizePlan) -> None:
        self._run = run
        self._llms = llms
        self._plan = plan
        self._turns = asyncio.Semaphore(CALLS_AT_ONCE)

    async def improve(self, trajectories: Sequence[Trajectory]) -> list[Improvement]:
        """Return what came of each prompt; raises what asking the models raises."""
        prompts = self._plan.prompts
        if not trajectories:
            return [_unchanged(prompt, "not_warranted", NO_CONVERSATIONS) for prompt in prompts]
        ask = self._ask(self._plan.model)
        chosen, why = await choose(ask, [p.as_prompt() for p in prompts], trajectories)
        await self._run.report("selected", prompts=chosen, total=len(prompts))
        improve = optimizer(self._plan.kind, self._plan.config, ask)
        improved = await together(
            *(self._improved(improve, p, trajectories) for p in prompts if p.name in chosen)
        )
        by_name = {one.prompt.name: one for one in improved}
        return [by_name.get(p.name) or _unchanged(p, "not_chosen", why) for p in prompts]

    async def _improved(
        self, improve: Optimizer, prompt: PlannedPrompt, trajectories: Sequence[Trajectory]
    ) -> Improvement:
        optimized = await improve.optimize(prompt.as_prompt(), trajectories)
        new = Improvement(
            prompt=prompt,
            outcome=optimized.outcome,
            text=prompt.text if optimized.text is None else optimized.text,
            analysis=optimized.analysis,
            reason=optimized.reason,
        )
        await self._run.report("optimized", prompt=prompt.name, outcome=new.outcome)
        if new.outcome != "improved":
            return new
        evaluation = self._plan.evaluation
        return replace(
            new,
            diff=await asyncio.to_thread(unified_diff, prompt.text, new.text, "old", "new"),
            evaluation=await self._evaluated(new, evaluation) if evaluation else None,
        )

    async def _evaluated(self, new: Improvement, plan: PlannedEvaluation) -> Evaluation | None:
        cases = [case.as_case() for case in plan.cases_of(new.prompt.name)]
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
        return limited(self._run.asking(self._llms.get(model)), self._turns)


def _unchanged(prompt: PlannedPrompt, outcome: Outcome, reason: str) -> Improvement:
    return Improvement(prompt, outcome, prompt.text, reason=reason)
