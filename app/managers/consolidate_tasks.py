"""Jobs of the kind `consolidate`: memories that are kept already are put in order."""

import asyncio
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Self

from app.auth.access import Verb
from app.clock import Clock
from app.db import Connection, Database, Row
from app.jobs.job import NewJob
from app.jobs.run import JobConflictError, JobFailedError, JobRun
from app.jobs.service import JobService
from app.managers import neighbours
from app.managers.applying import Applier, Origin, Outcome
from app.managers.breaker import objection
from app.managers.consolidation import Memory, Part, batches, merges, tidy
from app.managers.instructions import PROMPT_VERSION
from app.managers.memories import Ask, Existing, Rejected, Task
from app.managers.neighbours import Looked, Lookout
from app.managers.plans import ConsolidatePlan
from app.managers.reconciling import Edit, repeats
from app.managers.repeats import RepeatedError
from app.managers.tasks import REVIEW_WANTED
from app.providers.llm.base import LLM, Completion, Request
from app.providers.llm.pool import LLMs
from app.resources import Resources
from app.store import repository
from app.store.errors import PreconditionFailedError
from app.store.writes import Address

_ROUNDS = 5
"""Times that what others changed meanwhile is left out, before the job is put off."""

_INSTANT = timedelta(microseconds=1)


@dataclass(slots=True)
class _Work:
    """A job under way: what it looks at, what it came to, and what had to be left out."""

    run: JobRun
    plan: ConsolidatePlan
    looked: Looked
    origin: Origin
    parts: list[Part] = field(default_factory=list)
    overtaken: list[Part] = field(default_factory=list)


class ConsolidateHandler:
    """Does the jobs of the kind `consolidate`."""

    def __init__(
        self,
        database: Database,
        index_id: int,
        clock: Clock,
        llms: LLMs,
        applier: Applier,
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
            Applier.build(resources),
            JobService.build(resources),
        )

    async def run(self, run: JobRun) -> None:
        """Look at what changed, merge or tidy it up, and write that with the next mark."""
        plan = ConsolidatePlan.model_validate(run.job.request)
        looked = await self._look(run, plan)
        await run.report("looked", memories=len(looked.all), changed=len(looked.changed))
        work = _Work(run, plan, looked, Origin(run.job.id, manager=plan.manager))
        if plan.strategy == "llm":
            await self._tidy(work, self._llms.get(plan.config.model))
        elif plan.config.enable_deletes:
            work.parts = await asyncio.to_thread(_merges, looked)
        await self._apply(work)

    async def _look(self, run: JobRun, plan: ConsolidatePlan) -> Looked:
        access = run.job.access
        scope = access.scope(plan.namespace, Verb.READ)
        lookout = Lookout(self._index_id, self._clock.now())
        async with self._database.connection(access.root) as connection:
            since = None
            if not plan.everything:
                since = await neighbours.find_mark(connection, _mark(run, plan))
            return await lookout.look(connection, scope, since, limit=plan.limit)

    async def _tidy(self, work: _Work, llm: LLM) -> None:
        """Ask the model about every batch; JobFailedError where none came to anything."""
        config = work.plan.config
        work.origin = replace(
            work.origin,
            model=llm.name,
            prompt_version=PROMPT_VERSION,
            ttl_seconds=config.ttl_seconds,
        )
        task = Task(
            turns=(),
            existing=(),
            kinds=config.kinds,
            rights=config.rights,
            instructions=config.instructions,
            max_steps=config.max_steps,
            now=self._clock.now(),
        )
        waiting = await asyncio.to_thread(_batches, work.looked)
        for number, (namespace, batch) in enumerate(waiting, start=1):
            part = await tidy(_asking(work.run, llm), batch, task, namespace=namespace)
            work.parts.append(part)
            await work.run.report("batch", number=number, of=len(waiting), failure=part.failure)
        failures = _failures(work)
        if failures and len(failures) == len(work.parts):
            raise JobFailedError(
                "consolidation_failed",
                f"Nothing was changed: the model's answers to all {len(failures)} batches of "
                f"memories could not be used. To the first: {failures[0]}.",
            )

    async def _apply(self, work: _Work) -> None:
        """Write the parts, without those that rest on what was changed meanwhile."""
        for _ in range(_ROUNDS):
            outcome = _outcome(work)
            uses = await self._uses(work)

            async def conclude(
                connection: Connection, outcome: Outcome = outcome, uses: list[Row] = uses
            ) -> None:
                if outcome.review is None:
                    await self._check_basis(connection, work)
                    await self._add_uses(connection, work, uses)
                await self._go_on(connection, work, waits=outcome.review is not None)

            try:
                await self._applier.apply(work.run, outcome, also=conclude)
            except PreconditionFailedError:
                await self._leave_out_overtaken(work)
            except RepeatedError as error:
                work.parts = [_without_repeats(part, error) for part in work.parts]
            else:
                return
        raise JobConflictError(f"Others changed the same memories, {_ROUNDS} times in a row.")

    async def _check_basis(self, connection: Connection, work: _Work) -> None:
        """Raise PreconditionFailedError where a memory was changed that edits rest on.

        One may be deleted because another says the same, which must then still be there.
        """
        edited = {_address(edit) for part in work.parts for edit in part.edits}
        basis = {
            _address(memory.existing): memory.existing.version
            for part in work.parts
            for memory in part.memories
            if part.edits and _address(memory.existing) not in edited
        }
        locked = await repository.lock(connection, basis, self._clock.now())
        for address, version in basis.items():
            found = locked[address].version if address in locked else None
            if found != version:
                raise PreconditionFailedError(address[1], found)

    async def _leave_out_overtaken(self, work: _Work) -> None:
        """Keep the parts whose memories are as they were; the others are for the next run."""
        addresses = [_address(m.existing) for part in work.parts for m in part.memories]
        async with self._database.connection(work.run.job.access.root) as connection:
            rows = await repository.find_many(connection, addresses, self._clock.now())
        versions = {address: row["version"] for address, row in rows.items()}
        kept = [
            part
            for part in work.parts
            if not part.edits
            or all(versions.get(_address(m.existing)) == m.existing.version for m in part.memories)
        ]
        work.overtaken += [part for part in work.parts if part not in kept]
        work.parts = kept

    async def _uses(self, work: _Work) -> list[Row]:
        """Return how often duplicates were used that are to end."""
        async with self._database.connection(work.run.job.access.root) as connection:
            return [*await neighbours.find_uses(connection, _merged_into(work))]

    async def _add_uses(self, connection: Connection, work: _Work, uses: list[Row]) -> None:
        kept = [_merged_into(work)[row["item_id"]] for row in uses]
        scope = work.run.job.access.scope(work.plan.namespace, Verb.READ)
        await neighbours.add_uses(connection, scope, kept, uses)

    async def _go_on(self, connection: Connection, work: _Work, *, waits: bool) -> None:
        """Set the mark and, where more has changed and nothing waits for a review, go on."""
        job, plan, until = work.run.job, work.plan, work.looked.until
        if until is None:
            return
        left = [m.updated_at for part in work.overtaken for m in part.memories
                if m.item_id in work.looked.changed]  # fmt: skip
        until = min([until, *(moment - _INSTANT for moment in left)])
        await neighbours.set_mark(connection, _mark(work.run, plan), until)
        if work.looked.remaining and not waits:
            request = plan.model_copy(update={"everything": False}).model_dump(mode="json")
            new = NewJob(job.kind, job.namespace, request, job.namespace, plan.manager)
            follow_up = await self._jobs.create(connection, job.access, new)
            await neighbours.name_follow_up(connection, job.id, follow_up)


def _mark(run: JobRun, plan: ConsolidatePlan) -> str:
    """Return what the mark is kept under; a namespace's own text ends in a separator."""
    return run.job.namespace + plan.strategy


def _asking(run: JobRun, llm: LLM) -> Ask:
    async def ask(request: Request, purpose: str) -> Completion:
        return await run.complete(llm, request, purpose=purpose)

    return ask


def _merges(looked: Looked) -> list[Part]:
    return [part for memories in looked.memories.values() for part in merges(memories)]


def _batches(looked: Looked) -> list[tuple[str, list[Memory]]]:
    """Return the batches that hold two memories and more."""
    return [
        (namespace, batch)
        for namespace, memories in looked.memories.items()
        for batch in batches(memories, looked.ties[namespace])
        if len(batch) > 1
    ]


def _outcome(work: _Work) -> Outcome:
    edits = [edit for part in work.parts for edit in part.edits]
    overtaken = [
        Rejected(edit.action, "a memory it rests on was changed meanwhile")
        for part in work.overtaken
        for edit in part.edits
    ]
    rejected = [call for part in [*work.parts, *work.overtaken] for call in part.rejected]
    touched = sum(edit.before is not None for edit in edits)
    return Outcome(
        edits,
        work.origin,
        unchanged=len(work.looked.all) - touched,
        rejected=[*rejected, *overtaken],
        review=_review(work) if edits else None,
        told=_told(work),
    )


def _told(work: _Work) -> dict[str, Any]:
    told = {"strategy": work.plan.strategy, "looked_at": len(work.looked.all)}
    if work.plan.strategy == "llm":
        failures = _failures(work)
        told["batches"] = len(work.parts) + len(work.overtaken)
        told["failed_batches"] = len(failures)
    return {**told, "remaining": work.looked.remaining, "follow_up": None}


def _review(work: _Work) -> str | None:
    config = work.plan.config
    if config.apply == "review":
        return REVIEW_WANTED
    return objection(
        [edit for part in work.parts for edit in part.edits if edit not in part.formal],
        [memory.existing for memory in work.looked.all],
        single={kind.name for kind in config.kinds if kind.single},
        max_share=config.max_change_share,
    )


def _failures(work: _Work) -> list[str]:
    return [part.failure for part in work.parts if part.failure is not None]


def _merged_into(work: _Work) -> dict[int, int]:
    """Return, by the items that end as duplicates, those that stay."""
    if work.plan.strategy == "llm":
        return {}
    return {m.item_id: part.memories[0].item_id for part in work.parts for m in part.memories[1:]}


def _address(about: Existing | Edit) -> Address:
    return about.namespace or "", about.key or ""


def _without_repeats(part: Part, error: RepeatedError) -> Part:
    """Return a part without the inserts that say what is known elsewhere."""

    def is_known(edit: Edit) -> bool:
        return edit.action == "insert" and any(
            memory.namespace == edit.namespace and repeats(edit, memory)
            for memory in error.memories
        )

    return replace(part, edits=[edit for edit in part.edits if not is_known(edit)])
