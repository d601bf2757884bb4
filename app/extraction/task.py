"""Jobs of the kind `extract`: from a conversation to memories."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Self

from app.changes.apply import ChangeApplier, InSameTransaction, JobOutcome, Provenance
from app.changes.circuit_breaker import REVIEW_REQUESTED, review_reason
from app.changes.duplicates import DuplicateFoundError
from app.changes.reconcile import Reconciled, reconcile
from app.clock import Clock
from app.conversations.messages import to_turns
from app.conversations.types import Edit, LLMTask, Memory, Proposal, Turn
from app.db.database import Database
from app.extraction.loop import propose_in_phases
from app.extraction.plan import ExtractPlan
from app.extraction.prompt import PROMPT_VERSION
from app.extraction.retrieval import Retriever
from app.extraction.stateless import full_state, given
from app.extraction.verbatim import against, message_edits
from app.http.conditional import PreconditionFailedError
from app.jobs.run import JobConflictError, JobRun
from app.namespaces import StoredNamespace, to_stored
from app.providers.llm.pool import LLMPool
from app.resources import Resources

_ROUNDS = 3
"""Times that what others changed meanwhile is looked at anew, before the job is put off."""


@dataclass(frozen=True, slots=True)
class _Extraction:
    """One attempt at an extraction into a namespace."""

    run: JobRun
    plan: ExtractPlan
    turns: Sequence[Turn]
    labels: list[str]
    in_transaction: InSameTransaction | None

    @property
    def namespace(self) -> StoredNamespace:
        """The stored namespace."""
        return to_stored(self.labels, self.run.job.access.root)

    @property
    def singletons(self) -> frozenset[str]:
        """The names of the kinds of one document."""
        return self.plan.config.singletons

    def provenance(self, model: str | None) -> Provenance:
        """Return where the memories come from."""
        first = self.plan.position
        places = {} if first is None else {t.id: first + n for n, t in enumerate(self.turns)}
        return Provenance(
            job_id=self.run.job.id,
            model=model,
            prompt_version=None if model is None else PROMPT_VERSION,
            manager=self.plan.manager,
            thread_id=self.plan.thread_id,
            positions=places,
            ttl_seconds=self.plan.config.ttl_seconds,
        )


class Extractor:
    """Learns from conversations."""

    def __init__(
        self,
        database: Database,
        llms: LLMPool,
        retriever: Retriever,
        applier: ChangeApplier,
        clock: Clock,
    ) -> None:
        self._database = database
        self._llms = llms
        self._retriever = retriever
        self._applier = applier
        self._clock = clock

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make it from a process's resources."""
        retriever, applier = Retriever.build(resources), ChangeApplier.build(resources)
        return cls(resources.database, resources.llms, retriever, applier, resources.clock)

    async def extract(
        self, run: JobRun, plan: ExtractPlan, *, in_transaction: InSameTransaction | None = None
    ) -> None:
        """Run a plan and end the job, in one transaction with `in_transaction`."""
        turns = to_turns(plan.messages)
        if plan.namespace is None:
            await self._return_memories(run, plan, turns, in_transaction)
            return
        extraction = _Extraction(run, plan, turns, plan.namespace, in_transaction)
        for number in range(1, _ROUNDS + 1):
            try:
                if plan.config.strategy == "verbatim":
                    await self._keep_messages(extraction)
                else:
                    await self._keep_memories(extraction, number)
            except PreconditionFailedError:
                continue  # an item was changed since it was read: look at it anew
            return
        raise JobConflictError(f"Others changed the same memories, {_ROUNDS} times in a row.")

    async def _keep_memories(self, extraction: _Extraction, number: int) -> None:
        run, plan = extraction.run, extraction.plan
        config = plan.config
        existing = await self._retriever.find(
            run.job.access,
            extraction.labels,
            config,
            extraction.turns,
            context_messages=plan.context_messages,
            ask=run.asking(self._llms.get(config.query_model)) if config.query_model else None,
        )
        keys = {memory.id: memory.key for memory in existing}
        await run.report("retrieved", existing=len(existing), keys=keys)
        proposed = await self._proposed(run, plan, extraction.turns, existing)
        model = self._llms.get(config.model).name
        await self._apply(
            extraction,
            existing,
            proposed,
            JobOutcome(
                edits=(),
                provenance=extraction.provenance(model),
                rejected=proposed.rejected,
                details={"model": model, "prompt_version": PROMPT_VERSION, "rounds": number},
            ),
        )

    async def _apply(
        self,
        extraction: _Extraction,
        existing: Sequence[Memory],
        proposed: Proposal,
        outcome: JobOutcome,
    ) -> None:
        """Write what was proposed, reconciled with whatever turns out to be there already."""
        known = list(existing)
        for _ in range(_ROUNDS):
            reconciled = await asyncio.to_thread(
                reconcile,
                proposed.edits,
                known,
                namespace=extraction.namespace,
                singletons=extraction.singletons,
            )
            complete = replace(
                outcome,
                edits=_founded(list(reconciled.edits.values())),
                unchanged=reconciled.unchanged,
                review_reason=_review(extraction, reconciled, existing),
            )
            try:
                await self._applier.apply(
                    extraction.run, complete, in_transaction=extraction.in_transaction
                )
            except DuplicateFoundError as error:
                known += error.memories
            else:
                return
        raise JobConflictError("Others wrote the same memories at the same time.")

    async def _keep_messages(self, extraction: _Extraction) -> None:
        run = extraction.run
        edits = message_edits(extraction.plan, extraction.turns, extraction.namespace)
        keys = [edit.key or "" for edit in edits]
        existing = await self._retriever.at(run.job.access, extraction.namespace, keys)
        await run.report("retrieved", existing=len(existing))
        reconciled = against(edits, existing)
        wanted = extraction.plan.config.apply == "review" and reconciled.edits
        outcome = JobOutcome(
            edits=list(reconciled.edits.values()),
            provenance=extraction.provenance(None),
            unchanged=reconciled.unchanged,
            review_reason=REVIEW_REQUESTED if wanted else None,
            checks_duplicates=False,
        )
        await self._applier.apply(run, outcome, in_transaction=extraction.in_transaction)

    async def _return_memories(
        self,
        run: JobRun,
        plan: ExtractPlan,
        turns: Sequence[Turn],
        in_transaction: InSameTransaction | None,
    ) -> None:
        existing = given(plan.existing)
        proposed = await self._proposed(run, plan, turns, existing)
        singletons = {kind.name for kind in plan.config.kinds if kind.singleton}
        reconciled = await asyncio.to_thread(
            reconcile, proposed.edits, existing, singletons=singletons
        )
        result: dict[str, Any] = {
            **full_state(plan.existing, reconciled, proposed),
            "model": self._llms.get(plan.config.model).name,
            "prompt_version": PROMPT_VERSION,
            "rounds": 1,
        }
        async with self._database.transaction(run.job.access.root) as connection:
            await run.finish(connection, result)
            if in_transaction is not None:
                await in_transaction(connection)

    async def _proposed(
        self, run: JobRun, plan: ExtractPlan, turns: Sequence[Turn], existing: Sequence[Memory]
    ) -> Proposal:
        proposed = await propose_in_phases(
            run.asking(self._llms.get(plan.config.model)),
            _tasks(plan, turns, self._clock.now()),
            existing,
        )
        rejected = len(proposed.rejected)
        await run.report("proposed", changes=len(proposed.edits), rejected=rejected)
        return proposed


def _tasks(plan: ExtractPlan, turns: Sequence[Turn], now: datetime) -> list[LLMTask]:
    """Return the tasks of the model: the extraction, then the manager's phases."""
    config = plan.config
    extraction = LLMTask(
        turns=turns,
        existing=(),
        kinds=config.kinds,
        rights=config.rights,
        instructions=config.instructions,
        max_steps=config.max_steps,
        now=now,
        context_turns=plan.context_messages,
    )
    phases = (
        replace(
            extraction,
            turns=turns if phase.include_messages else (),
            rights=phase.rights,
            instructions=phase.instructions,
            context_turns=plan.context_messages if phase.include_messages else 0,
        )
        for phase in config.phases
    )
    return [extraction, *phases]


class ExtractHandler:
    """Does the jobs of the kind `extract`."""

    def __init__(self, extractor: Extractor) -> None:
        self._extractor = extractor

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make it from a process's resources."""
        return cls(Extractor.build(resources))

    async def run(self, run: JobRun, plan: ExtractPlan) -> None:
        """Extract memories as planned."""
        await self._extractor.extract(run, plan)


def _founded(edits: Sequence[Edit]) -> list[Edit]:
    """Return edits whose deletes rest on the updates: what is deleted may go on in these."""
    updated = [edit.before for edit in edits if edit.action == "update" and edit.before]
    basis = tuple(
        (StoredNamespace(m.namespace or ""), m.key or "", m.version or 0) for m in updated
    )
    return [replace(edit, basis=basis) if edit.action == "delete" else edit for edit in edits]


def _review(extraction: _Extraction, reconciled: Reconciled, shown: Sequence[Memory]) -> str | None:
    """Return why the edits have to wait for a review, or None."""
    config = extraction.plan.config
    if reconciled.edits and config.apply == "review":
        return REVIEW_REQUESTED
    return review_reason(
        reconciled.edits.values(),
        shown,
        singletons=extraction.singletons,
        max_share=config.max_change_share,
    )
