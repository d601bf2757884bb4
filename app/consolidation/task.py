"""Jobs of the kind `consolidate`: they merge, correct, and delete stored memories."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial

from app.auth.access import Verb
from app.background import run_together
from app.changes.apply import ChangeApplier, JobOutcome, Provenance, require_versions
from app.changes.duplicates import DuplicateFoundError, is_duplicate
from app.changes.reconcile import REVIEW_REQUESTED, review_reason
from app.consolidation import repository
from app.consolidation.merge import make_batches, merge_batch, merge_duplicates
from app.consolidation.plan import ConsolidatePlan
from app.consolidation.repository import ScopeFinder
from app.consolidation.scope import ConsolidationScope, EditGroup, StoredMemory, address_of
from app.conversations.dialogue import Ask, NoAnswerError, join_failures
from app.conversations.division import Refusal, ask_in_parts
from app.conversations.memories import Edit, LLMTask, Rejection
from app.db.database import (
    Connection,
    OvertakenError,
    TooManyConflictsError,
    retry_optimistically,
)
from app.extraction.prompt import PROMPT_VERSION
from app.http.headers import PreconditionFailedError
from app.jobs import repository as jobs_repository
from app.jobs.kind import JobConflictError, JobFailedError, JobRun
from app.jobs.service import JobService
from app.json_values import JsonObject
from app.namespaces import StoredNamespace
from app.providers.errors import RequestTooLongError
from app.providers.llm import LLM
from app.resources import Resources
from app.store import repository as items
from app.store import source_repository
from app.store.types import Address
from app.usage_counter import Uses, add_uses

_CONCURRENT_BATCHES = 4
"""Batches of one job that models work on at the same time."""

_ATTEMPTS = 5
"""Attempts to write the edits before the job is retried later."""

_INSTANT = timedelta(microseconds=1)


@dataclass(slots=True)
class Consolidation:
    """A running job: the compared memories, the edits, and the groups that were overtaken.

    A group is overtaken if one of its memories was changed after the job read it.
    """

    run: JobRun
    plan: ConsolidatePlan
    scope: ConsolidationScope
    provenance: Provenance
    groups: list[EditGroup] = field(default_factory=list)
    overtaken: list[EditGroup] = field(default_factory=list)

    @property
    def edits(self) -> list[Edit]:
        """The edits to apply."""
        return [replace(edit, basis=group.basis) for group in self.groups for edit in group.edits]

    @property
    def failures(self) -> list[str]:
        """The reasons of the batches that failed."""
        groups = [*self.groups, *self.overtaken]
        return [group.failure for group in groups if group.failure is not None]

    @property
    def merged(self) -> list[tuple[StoredMemory, StoredMemory]]:
        """Duplicates that are merged: the memory that stays, and one that ends."""
        if self.plan.strategy == "llm":
            return []
        return [(group.memories[0], ended) for group in self.groups for ended in group.memories[1:]]

    def outcome(self) -> JobOutcome:
        """Return the outcome of the job."""
        return JobOutcome(
            self.edits,
            self.provenance,
            repeated=[edit for group in self.groups for edit in group.repeated],
            unchanged=len(self.scope.all) - sum(edit.before is not None for edit in self.edits),
            rejected=self._rejected(),
            review_reason=self._review_reason() if self.edits else None,
            details=self._details(),
        )

    def _rejected(self) -> list[Rejection]:
        groups = [*self.groups, *self.overtaken]
        rejected = [rejection for group in groups for rejection in group.rejected]
        reason = "a memory on which it relies has changed"
        overtaken = [edit for group in self.overtaken for edit in group.edits]
        return [*rejected, *(Rejection(edit.action, reason) for edit in overtaken)]

    def _review_reason(self) -> str | None:
        """Return why the edits need a review; those that lose nothing but form need none."""
        config = self.plan.config
        if config.apply == "review":
            return REVIEW_REQUESTED
        return review_reason(
            [e for group in self.groups for e in group.edits if e not in group.formal_edits],
            [stored.memory for stored in self.scope.all],
            singletons=config.singletons,
            max_share=config.max_change_share,
        )

    def _details(self) -> JsonObject:
        details: JsonObject = {
            "strategy": self.plan.strategy,
            "compared": len(self.scope.all),
            "has_more": self.scope.has_more,
            "follow_up_job_id": None,
        }
        if self.plan.strategy == "llm":
            details["batches"] = len(self.groups) + len(self.overtaken)
            details["failed_batches"] = len(self.failures)
        return details


class ConsolidateHandler:
    """Runs the jobs of the kind `consolidate`."""

    def __init__(self, resources: Resources) -> None:
        self._database = resources.database
        self._index_id = resources.index.id
        self._clock = resources.clock
        self._llms = resources.llms
        self._habits = resources.habits
        self._applier = ChangeApplier.build(resources)
        self._jobs = JobService.build(resources)

    async def run(self, run: JobRun, plan: ConsolidatePlan) -> None:
        """Compare the changed memories, merge some, and write the edits with the next mark."""
        scope = await self._find_scope(run, plan)
        await run.report("selected", memories=len(scope.all), changed=len(scope.changed))
        provenance = Provenance(run.job.id, manager=plan.manager)
        consolidation = Consolidation(run, plan, scope, provenance)
        if plan.strategy == "llm":
            await self._ask_model(consolidation, self._llms.get(plan.config.model))
        elif plan.config.enable_deletes:
            consolidation.groups = await asyncio.to_thread(_merge_duplicates, scope)
        await self._apply(consolidation)

    async def _find_scope(self, run: JobRun, plan: ConsolidatePlan) -> ConsolidationScope:
        access = run.job.access
        namespaces = access.scope(plan.namespace, Verb.READ)
        full_from = run.job.id if plan.full else plan.full_from
        finder = ScopeFinder(self._index_id, self._clock.now(), plan.strategy, full_from)
        async with self._database.connection(access.root) as connection:
            since = None
            if not plan.full:
                since = await repository.find_mark(connection, run.job.namespace, plan.strategy)
            return await finder.find_changed(connection, namespaces, since, limit=plan.limit)

    async def _ask_model(self, consolidation: Consolidation, llm: LLM) -> None:
        """Ask the model about every batch; raises JobFailedError if all of them failed.

        Raises NoAnswerError if another attempt may get an answer about some of them.
        """
        config = consolidation.plan.config
        consolidation.provenance = replace(
            consolidation.provenance,
            model=llm.name,
            prompt_version=PROMPT_VERSION,
            ttl_seconds=config.ttl_seconds,
        )
        task = LLMTask(
            turns=(),
            existing=(),
            kinds=config.kinds,
            rights=config.rights,
            instructions=config.instructions,
            max_steps=config.max_steps,
            now=self._clock.now(),
            habit=self._habits.get(llm.name),
            may_be_retried=not consolidation.run.job.is_last_attempt,
            with_questions=config.questions,
        )
        groups = await _merge_batches(consolidation, consolidation.run.asking(llm), task)
        consolidation.groups = groups
        for group in groups:
            self._habits.learn(llm.name, group.habit)
        failures = consolidation.failures
        if failures and len(failures) == len(groups):
            raise JobFailedError(
                "consolidation_failed",
                "Nothing was changed: the model's answer for each batch of memories was not usable "
                f"({len(groups)} of {len(groups)}). The first one: {failures[0]}.",
            )

    async def _apply(self, consolidation: Consolidation) -> None:
        """Write the groups, except those that rely on memories that have changed."""

        async def attempt() -> None:
            outcome = consolidation.outcome()
            conclude = partial(self._conclude, consolidation=consolidation, outcome=outcome)
            try:
                await self._applier.apply(consolidation.run, outcome, in_transaction=conclude)
            except PreconditionFailedError as error:
                await self._set_overtaken_aside(consolidation)
                raise OvertakenError from error
            except DuplicateFoundError as error:
                groups = consolidation.groups
                consolidation.groups = [_without_duplicates(group, error) for group in groups]
                raise OvertakenError from error

        try:
            await retry_optimistically(attempt, attempts=_ATTEMPTS)
        except TooManyConflictsError as error:
            problem = f"Others changed the same memories, {_ATTEMPTS} times in a row."
            raise JobConflictError(problem) from error

    async def _conclude(
        self, connection: Connection, *, consolidation: Consolidation, outcome: JobOutcome
    ) -> None:
        """Check the basis, set the mark, and submit a follow-up, in the job's last transaction."""
        run, scope = consolidation.run, consolidation.scope
        if scope.until is None:
            return
        waits = outcome.review_reason is not None
        if not waits:
            await self._check_basis(connection, consolidation)
            await add_uses(connection, _moved_uses(consolidation))
            await source_repository.clear_stale(connection, _reviewed(consolidation))
        await repository.set_mark(
            connection,
            run.job.namespace,
            consolidation.plan.strategy,
            _reached(consolidation, scope.until),
        )
        is_complete = not any(group.unanswered for group in consolidation.groups)
        if scope.has_more and not scope.is_held and not waits and is_complete:
            await self._submit_follow_up(connection, consolidation)

    async def _check_basis(self, connection: Connection, consolidation: Consolidation) -> None:
        """Raise PreconditionFailedError if a memory on which edits rely has changed.

        A duplicate may be deleted only while the other one exists.
        """
        edited = {address_of(edit) for edit in consolidation.edits}
        basis = {
            stored.address: stored.memory.version
            for group in consolidation.groups
            for stored in group.memories
            if group.edits and stored.address not in edited
        }
        await require_versions(connection, basis, self._clock.now())

    async def _set_overtaken_aside(self, consolidation: Consolidation) -> None:
        """Keep the groups whose memories have not changed; the others are for the next job."""
        groups = consolidation.groups
        addresses = [stored.address for group in groups for stored in group.memories]
        async with self._database.connection(consolidation.run.job.access.root) as connection:
            found = await items.find_many(connection, addresses, self._clock.now())
        versions = {address: item.version for address, item in found.items()}
        kept = [
            group
            for group in groups
            if not group.edits
            or all(versions.get(s.address) == s.memory.version for s in group.memories)
        ]
        consolidation.overtaken += [group for group in groups if group not in kept]
        consolidation.groups = kept

    async def _submit_follow_up(self, connection: Connection, consolidation: Consolidation) -> None:
        """Submit a job for the other memories that have changed."""
        job, plan = consolidation.run.job, consolidation.plan
        full_from = job.id if plan.full else plan.full_from
        new = plan.model_copy(update={"full": False, "full_from": full_from}).new_job(
            job.namespace, concurrency_key=job.namespace, manager=plan.manager
        )
        follow_up = await self._jobs.create(connection, job.access, new)
        await jobs_repository.set_follow_up(connection, job.id, follow_up)


def _reviewed(consolidation: Consolidation) -> list[Address]:
    """Return the stale memories that a model has looked at."""
    groups = consolidation.groups if consolidation.plan.strategy == "llm" else ()
    return [
        stored.address
        for group in groups
        for stored in group.memories
        if stored.memory.is_stale and group.failure is None
    ]


def _moved_uses(consolidation: Consolidation) -> list[tuple[int, Uses]]:
    """Return the uses of duplicates that end, for the memories that stay."""
    return [
        (kept.item_id, Uses(kept.address.namespace, ended.uses, ended.last_used_at))
        for kept, ended in consolidation.merged
        if ended.last_used_at is not None
    ]


def _reached(consolidation: Consolidation, until: datetime) -> datetime:
    """Return the mark to set: before the first change that is left to the next job."""
    unanswered = [group for group in consolidation.groups if group.unanswered]
    left = [
        stored.updated_at - _INSTANT
        for group in (*consolidation.overtaken, *unanswered)
        for stored in group.memories
        if stored.item_id in consolidation.scope.changed
    ]
    return min([until, *left])


async def _merge_batches(consolidation: Consolidation, ask: Ask, task: LLMTask) -> list[EditGroup]:
    """Return the model's edits of each batch; an error of one cancels the others.

    Raises NoAnswerError if there was no answer about some, and this is not the last attempt.
    """
    run = consolidation.run
    batches = await asyncio.to_thread(_batches, consolidation.scope)
    places = asyncio.Semaphore(_CONCURRENT_BATCHES)
    failures: list[NoAnswerError] = []

    async def merge(namespace: StoredNamespace, batch: list[StoredMemory]) -> list[EditGroup]:
        groups: list[EditGroup] = []

        async def ask_about(part: list[StoredMemory]) -> None:
            try:
                groups.append(await merge_batch(ask, part, task, namespace=namespace))
            except NoAnswerError as error:
                failures.extend([error] if error.retryable else [])
                groups.append(_failed_group(part, error.reason, unanswered=error.retryable))

        def divide(left: Sequence[list[StoredMemory]], error: Refusal) -> list[list[StoredMemory]]:
            part, *others = left
            if not isinstance(error, RequestTooLongError):
                raise error
            middle = len(part) // 2
            if middle > 1:
                return [part[:middle], part[middle:], *others]
            groups.append(_failed_group(part, str(error)))
            return others

        async with places:
            await ask_in_parts([batch], ask_about, divide)
        failure = next((group.failure for group in groups if group.failure), None)
        await run.report("batch_finished", batches=len(batches), error=failure)
        return groups

    merged = await run_together(*(merge(namespace, batch) for namespace, batch in batches))
    if failures and not run.job.is_last_attempt:
        raise join_failures(failures)
    return [group for groups in merged for group in groups]


def _failed_group(
    batch: Sequence[StoredMemory], reason: str, *, unanswered: bool = False
) -> EditGroup:
    return EditGroup(batch, rejected=[Rejection("", reason)], failure=reason, unanswered=unanswered)


def _merge_duplicates(scope: ConsolidationScope) -> list[EditGroup]:
    return [g for memories in scope.memories.values() for g in merge_duplicates(memories)]


def _batches(scope: ConsolidationScope) -> list[tuple[StoredNamespace, list[StoredMemory]]]:
    """Return the batches with a changed memory and another to compare it with."""
    return [
        (namespace, batch)
        for namespace, memories in scope.memories.items()
        for batch in make_batches(memories, scope.similarities[namespace])
        if len(batch) > 1 and any(stored.item_id in scope.changed for stored in batch)
    ]


def _without_duplicates(group: EditGroup, error: DuplicateFoundError) -> EditGroup:
    """Return a group without the inserts that duplicate other memories."""

    def is_known(edit: Edit) -> bool:
        return edit.action == "insert" and any(
            memory.namespace == edit.namespace
            and is_duplicate(edit.kind, edit.content or {}, memory)
            for memory in error.memories
        )

    return replace(group, edits=[edit for edit in group.edits if not is_known(edit)])
