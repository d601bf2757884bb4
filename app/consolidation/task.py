"""Jobs of the kind `consolidate`: memories that are kept already are put in order."""

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Self

from app.auth.access import Verb
from app.changes.apply import ChangeApplier, JobOutcome, Provenance, require_versions
from app.changes.duplicates import DuplicateFoundError, is_duplicate
from app.clock import Clock
from app.consolidation import repository
from app.consolidation.batches import Part, StoredMemory, batches, merges
from app.consolidation.merge import tidy
from app.consolidation.outcome import Work
from app.consolidation.plan import ConsolidatePlan
from app.consolidation.repository import Looked, Lookout
from app.conversations.types import Ask, Edit, LLMTask, Memory
from app.db.database import Connection, Database
from app.extraction.prompt import PROMPT_VERSION
from app.http.conditional import PreconditionFailedError
from app.jobs.run import JobConflictError, JobFailedError, JobRun
from app.jobs.service import JobService
from app.namespaces import StoredNamespace
from app.providers.llm.base import LLM
from app.providers.llm.pool import LLMPool
from app.resources import Resources
from app.store import repository as items
from app.store.types import Address

_AT_ONCE = 4
"""Batches of one job that models work on."""

_ROUNDS = 5
"""Times that what others changed meanwhile is left out, before the job is put off."""

_INSTANT = timedelta(microseconds=1)


class ConsolidateHandler:
    """Does the jobs of the kind `consolidate`."""

    def __init__(
        self,
        database: Database,
        index_id: int,
        clock: Clock,
        llms: LLMPool,
        applier: ChangeApplier,
        jobs: JobService,
    ) -> None:
        self._database = database
        self._index_id = index_id
        self._clock = clock
        self._llms = llms
        self._applier = applier
        self._jobs = jobs

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make it from a process's resources."""
        return cls(
            resources.database,
            resources.index.id,
            resources.clock,
            resources.llms,
            ChangeApplier.build(resources),
            JobService.build(resources),
        )

    async def run(self, run: JobRun, plan: ConsolidatePlan) -> None:
        """Look at what changed, merge or tidy it up, and write that with the next mark."""
        looked = await self._look(run, plan)
        await run.report("selected", memories=len(looked.all), changed=len(looked.changed))
        work = Work(run, plan, looked, Provenance(run.job.id, manager=plan.manager))
        if plan.strategy == "llm":
            await self._tidy(work, self._llms.get(plan.config.model))
        elif plan.config.enable_deletes:
            work.parts = await asyncio.to_thread(_merges, looked)
        await self._apply(work)

    async def _look(self, run: JobRun, plan: ConsolidatePlan) -> Looked:
        access = run.job.access
        scope = access.scope(plan.namespace, Verb.READ)
        began = run.job.id if plan.everything else plan.everything_from
        lookout = Lookout(self._index_id, self._clock.now(), plan.strategy, began)
        async with self._database.connection(access.root) as connection:
            since = None
            if not plan.everything:
                since = await repository.find_mark(connection, run.job.namespace, plan.strategy)
            return await lookout.look(connection, scope, since, limit=plan.limit)

    async def _tidy(self, work: Work, llm: LLM) -> None:
        """Ask the model about every batch; JobFailedError where none came to anything."""
        config = work.plan.config
        work.provenance = replace(
            work.provenance,
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
        )
        work.parts = await _tidied(work, work.run.asking(llm), task)
        if work.failures and len(work.failures) == len(work.parts):
            raise JobFailedError(
                "consolidation_failed",
                "Nothing was changed: what the model made of each batch of memories could not "
                f"be used ({len(work.parts)} of {len(work.parts)}). Of the first: "
                f"{work.failures[0]}.",
            )

    async def _apply(self, work: Work) -> None:
        """Write the parts, without those that rest on what was changed meanwhile."""
        for _ in range(_ROUNDS):
            outcome = work.outcome()
            also = partial(self._conclude, work=work, outcome=outcome)
            try:
                await self._applier.apply(work.run, outcome, in_transaction=also)
            except PreconditionFailedError:
                await self._leave_out_overtaken(work)
            except DuplicateFoundError as error:
                work.parts = [_without_repeats(part, error) for part in work.parts]
            else:
                return
        raise JobConflictError(f"Others changed the same memories, {_ROUNDS} times in a row.")

    async def _conclude(self, connection: Connection, *, work: Work, outcome: JobOutcome) -> None:
        """Do the rest of the last transaction: check the basis, set the mark, go on."""
        until = work.looked.until
        waits = outcome.review_reason is not None
        if until is None:
            return
        if not waits:
            await self._check_basis(connection, work)
            await repository.add_uses(connection, work.merged)
        await repository.set_mark(
            connection, work.run.job.namespace, work.plan.strategy, _reached(work, until)
        )
        if work.looked.remaining and not work.looked.held and not waits:
            await self._go_on(connection, work)

    async def _check_basis(self, connection: Connection, work: Work) -> None:
        """Raise PreconditionFailedError where a memory was changed that edits rest on.

        One may be deleted because another says the same, which must then still be there.
        """
        edited = {_address(edit) for edit in work.edits}
        basis = {
            _address(memory.existing): memory.existing.version
            for part in work.parts
            for memory in part.memories
            if part.edits and _address(memory.existing) not in edited
        }
        await require_versions(connection, basis, self._clock.now())

    async def _leave_out_overtaken(self, work: Work) -> None:
        """Keep the parts whose memories are as they were; the others are for the next run."""
        addresses = [_address(m.existing) for part in work.parts for m in part.memories]
        async with self._database.connection(work.run.job.access.root) as connection:
            found = await items.find_many(connection, addresses, self._clock.now())
        versions = {address: item.version for address, item in found.items()}
        kept = [
            part
            for part in work.parts
            if not part.edits
            or all(versions.get(_address(m.existing)) == m.existing.version for m in part.memories)
        ]
        work.overtaken += [part for part in work.parts if part not in kept]
        work.parts = kept

    async def _go_on(self, connection: Connection, work: Work) -> None:
        """Submit a job for what else has changed."""
        job, plan = work.run.job, work.plan
        began = job.id if plan.everything else plan.everything_from
        update = {"everything": False, "everything_from": began}
        new = plan.model_copy(update=update).new_job(
            job.namespace, concurrency_key=job.namespace, manager=plan.manager
        )
        follow_up = await self._jobs.create(connection, job.access, new)
        await repository.name_follow_up(connection, job.id, follow_up)


def _reached(work: Work, until: datetime) -> datetime:
    """Return the mark to set: before the first change that had to be left out."""
    left = [m for part in work.overtaken for m in part.memories if m.item_id in work.looked.changed]
    return min([until, *(memory.updated_at - _INSTANT for memory in left)])


async def _tidied(work: Work, ask: Ask, task: LLMTask) -> list[Part]:
    """Return what the model makes of each batch; after an error no further one is begun."""
    waiting = await asyncio.to_thread(_batches, work.looked)
    turns = asyncio.Semaphore(_AT_ONCE)

    async def one(namespace: str, batch: list[StoredMemory]) -> Part:
        async with turns:
            part = await tidy(ask, batch, task, namespace=namespace)
            await work.run.report("batch_finished", batches=len(waiting), error=part.failure)
            return part

    parts = [asyncio.create_task(one(*batch)) for batch in waiting]
    try:
        return await asyncio.gather(*parts)
    finally:
        for part in parts:
            part.cancel()


def _merges(looked: Looked) -> list[Part]:
    return [part for memories in looked.memories.values() for part in merges(memories)]


def _batches(looked: Looked) -> list[tuple[str, list[StoredMemory]]]:
    """Return the batches that hold something changed and something to compare it with."""
    return [
        (namespace, batch)
        for namespace, memories in looked.memories.items()
        for batch in batches(memories, looked.ties[namespace])
        if len(batch) > 1 and any(memory.item_id in looked.changed for memory in batch)
    ]


def _address(about: Memory | Edit) -> Address:
    return Address(about.namespace or StoredNamespace(""), about.key or "")


def _without_repeats(part: Part, error: DuplicateFoundError) -> Part:
    """Return a part without the inserts that say what is known elsewhere."""

    def is_known(edit: Edit) -> bool:
        return edit.action == "insert" and any(
            memory.namespace == edit.namespace
            and is_duplicate(edit.kind, edit.content or {}, memory)
            for memory in error.memories
        )

    return replace(part, edits=[edit for edit in part.edits if not is_known(edit)])
