"""Jobs that improve prompts: their handler, the new versions in the registry, and the result."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal, Self, TypeAlias, assert_never

from app.auth.access import Access
from app.background import run_together
from app.changes.apply import access_for_job
from app.conversations.dialogue import Ask, NoAnswerError, join_failures
from app.db.database import Connection, Database
from app.jobs.kind import JobRun
from app.json_values import JsonObject
from app.prompts import repository
from app.prompts.coverage import Coverage, find_coverage
from app.prompts.evaluation import Evaluation, Gate, Trial
from app.prompts.optimizers import (
    GradientOptimizer,
    MetaPromptOptimizer,
    PromptMemoryOptimizer,
    choose_prompts,
)
from app.prompts.plan import OptimizePlan, PlannedEvaluation, PlannedPrompt, read_trajectories
from app.prompts.repository import Ref
from app.prompts.service import PromptService
from app.prompts.texts import unified_diff
from app.prompts.types import (
    NO_CONVERSATIONS,
    PRODUCTION,
    Optimizer,
    OptimizerConfig,
    OptimizerKind,
    PromptNotFoundError,
    PromptVersionNotFoundError,
    TargetPrompt,
    Trajectory,
)
from app.providers.llm import Completion, LLMPool, Request
from app.resources import Resources

DELETED = "the prompt was deleted during the job, so nothing was stored"
NOT_STORED = "the prompt came with the request, so nothing is stored"

Outcome: TypeAlias = Literal["improved", "not_warranted", "not_chosen", "rejected"]

MAX_CONCURRENT_CALLS = 4
"""Per job, so that several jobs share the provider's limits."""


@dataclass(frozen=True, slots=True)
class Improvement:
    """Outcome for one prompt; `text` is the new one, or the old one if nothing changes.

    `diff` has the changed lines in unified format.
    """

    prompt: PlannedPrompt
    outcome: Outcome
    text: str
    analysis: str | None = None
    reason: str | None = None
    diff: str = ""
    evaluation: Evaluation | None = None
    coverage: Coverage | None = None


@dataclass(frozen=True, slots=True)
class StoredText:
    """The version with a new text; if `version` is None, `reason` says why nothing was stored.

    `not_promoted_reason` says why the label production does not point to the version.
    """

    version: int | None = None
    labels: Sequence[str] = ()
    not_promoted_reason: str | None = None
    reason: str | None = None

    @property
    def promoted(self) -> bool:
        """True if the text went into production."""
        return self.version is not None and self.not_promoted_reason is None


class TextWriter:
    """Stores new texts in the transaction that ends a job."""

    def __init__(
        self, prompts: PromptService, connection: Connection, access: Access, *, promote: bool
    ) -> None:
        self._prompts = prompts
        self._connection = connection
        self._access = access
        self._promote = promote

    async def store(self, new: Improvement) -> StoredText:
        """Add a version to a stored prompt; promote it if it passed and production is the same."""
        name = new.prompt.name
        ref = Ref(self._access.root, name)
        await repository.lock(self._connection, ref)
        if not await self._exists(new.prompt):
            return StoredText(not_promoted_reason=DELETED, reason=DELETED)
        version = await self._prompts.add_version(
            self._connection,
            self._access,
            name,
            new.text,
            based_on=new.prompt.version,
            analysis=new.analysis,
        )
        labels = await repository.find_labels(self._connection, ref)
        production = labels.get(PRODUCTION)
        if production == version:  # another request has promoted the same text
            objection = None
        elif (objection := self._objection(new, production)) is None:
            await self._prompts.promote(self._connection, self._access, name, version=version)
        stored = await self._prompts.read(self._connection, self._access, name, version=version)
        return StoredText(version, stored.labels, objection)

    async def _exists(self, prompt: PlannedPrompt) -> bool:
        """Return whether the improved version exists, not in a new prompt of the same name."""
        try:
            stored = await self._prompts.read(
                self._connection, self._access, prompt.name, version=prompt.version
            )
        except (PromptNotFoundError, PromptVersionNotFoundError):
            return False
        return stored.text == prompt.text

    def _objection(self, new: Improvement, production: int | None) -> str | None:
        """Return why a stored text does not go into production; None if it does."""
        if new.evaluation is None:
            return "it was not evaluated"
        if not new.evaluation.passed:
            return "the new text did not win by the margin"
        if not self._promote:
            return "the request says not to promote"
        if production is None:
            return "no version is in production, so there is none to replace"
        if production != new.prompt.version:
            return (
                f"version {production} is in production, and the new text was compared "
                f"with version {new.prompt.version}"
            )
        return None


def to_result(new: Improvement, stored: StoredText | None) -> JsonObject:
    """Return the result for one prompt; `stored` is None if there was nothing to store."""
    return {
        "name": new.prompt.name,
        "outcome": new.outcome,
        "changed": new.text != new.prompt.text,
        "text": new.text,
        "analysis": new.analysis,
        "reason": stored.reason if stored and stored.reason else new.reason,
        "diff": new.diff,
        "based_on": new.prompt.version,
        "version": stored and stored.version,
        "labels": list(stored.labels) if stored else [],
        "evaluation": new.evaluation
        and {
            **_evaluation(new.evaluation),
            "coverage": new.coverage and _coverage(new.coverage),
            "promoted": bool(stored and stored.promoted),
            "not_promoted_reason": stored.not_promoted_reason if stored else NOT_STORED,
        },
    }


def _evaluation(evaluation: Evaluation) -> JsonObject:
    return {
        "cases_won": evaluation.count("win"),
        "cases_won_as_expected": evaluation.won_as_expected,
        "cases_lost": evaluation.count("loss"),
        "cases_tied": evaluation.count("tie"),
        "net_win_rate": evaluation.net_win_rate,
        "margin": evaluation.margin,
        "passed": evaluation.passed,
        "cases": [_trial(trial) for trial in evaluation.trials],
    }


def _coverage(coverage: Coverage) -> JsonObject:
    return {
        "failures": [asdict(failure) for failure in coverage.failures],
        "tested": coverage.tested,
        "warning": coverage.warning,
    }


def _trial(trial: Trial) -> JsonObject:
    return {
        "outcome": trial.outcome,
        "meets_expected": trial.meets_expected,
        "answers": {side: asdict(answer) for side, answer in trial.answers.items()},
        "verdicts": [asdict(verdict) for verdict in trial.verdicts],
    }


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
        self._targets: Mapping[str, TargetPrompt] = {}

    async def improve(self, trajectories: Sequence[Trajectory]) -> list[Improvement]:
        """Return the outcome for each prompt; raises the errors of asking the models."""
        prompts = self._plan.prompts
        if not trajectories:
            return [_unchanged(prompt, "not_warranted", NO_CONVERSATIONS) for prompt in prompts]
        ask = self._ask(self._plan.model)
        targets = [prompt.to_target() for prompt in prompts]
        chosen, why = await choose_prompts(ask, targets, trajectories)
        await self._run.report("selected", prompts=chosen, total=len(prompts))
        optimizer = build_optimizer(self._plan.kind, self._plan.config, ask)
        self._targets = {target.name: target.among(targets, why) for target in targets}
        improved = await self._improve_all(
            optimizer, [p for p in prompts if p.name in chosen], trajectories
        )
        by_name = {one.prompt.name: one for one in improved}
        return [by_name.get(p.name) or _unchanged(p, "not_chosen", why) for p in prompts]

    async def _improve_all(
        self,
        optimizer: Optimizer,
        prompts: Sequence[PlannedPrompt],
        trajectories: Sequence[Trajectory],
    ) -> list[Improvement]:
        """Return the outcomes; raises NoAnswerError if another attempt may get an answer.

        In the last attempt, prompts without an answer are rejected, unless there are no others.
        """
        failures: dict[str, NoAnswerError] = {}

        async def improve(prompt: PlannedPrompt) -> Improvement:
            try:
                return await self._improve(optimizer, prompt, trajectories)
            except NoAnswerError as error:
                failures[prompt.name] = error
                return _unchanged(prompt, "rejected", error.reason)

        improved = await run_together(*map(improve, prompts))
        if failures and not (self._run.job.is_last_attempt and len(failures) < len(improved)):
            raise join_failures(list(failures.values()))
        return improved

    async def _improve(
        self, optimizer: Optimizer, prompt: PlannedPrompt, trajectories: Sequence[Trajectory]
    ) -> Improvement:
        optimization = await optimizer.optimize(self._targets[prompt.name], trajectories)
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
        diff = await asyncio.to_thread(unified_diff, prompt.text, new.text, "old", "new")
        new = replace(new, diff=diff)
        return await self._evaluate(new, evaluation) if evaluation else new

    async def _evaluate(self, new: Improvement, plan: PlannedEvaluation) -> Improvement:
        """Return an improvement with its evaluation, unless no case concerns the prompt."""
        cases = [case.to_case() for case in plan.cases_of(new.prompt.name)]
        if not cases:
            return new
        judge = self._ask(plan.judge)
        gate = Gate(answers=self._ask(plan.model), judge=judge)
        evaluation = await gate.evaluate(new.prompt.text, new.text, cases, plan.margin)
        coverage = await find_coverage(judge, new.analysis or "", cases)
        await self._run.report(
            "evaluated",
            prompt=new.prompt.name,
            net_win_rate=evaluation.net_win_rate,
            passed=evaluation.passed,
        )
        return replace(new, evaluation=evaluation, coverage=coverage)

    def _ask(self, model: str | None) -> Ask:
        return limit_calls(self._run.asking(self._llms.get(model)), self._slots)


def limit_calls(ask: Ask, slots: asyncio.Semaphore) -> Ask:
    """Return an `Ask` that waits for a free slot."""

    async def ask_in_slot(request: Request, purpose: str) -> Completion:
        async with slots:
            return await ask(request, purpose)

    return ask_in_slot


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
