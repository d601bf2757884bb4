"""Undo of a job's changes, except to items that have changed since."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self, TypeAlias

from app.auth.access import Access, Verb
from app.changes import repository
from app.changes.apply import WritePlanner, access_for_job, to_duration
from app.changes.repository import Change, ChangeState
from app.clock import Clock
from app.db.database import Connection, Database, OvertakenError, retry_optimistically
from app.http.headers import Precondition, PreconditionFailedError
from app.jobs import repository as jobs
from app.jobs.record import JobRecord, State
from app.jobs.service import JobService, JobStateError
from app.json_values import JsonObject
from app.resources import Resources
from app.store import history_repository
from app.store.types import Address, Delete, Item, ItemVersion, Put, PutResult, Ttl, Write
from app.store.writer import ItemWriter

_ATTEMPTS = 5

CHANGED = "The item was changed since the job changed it."
ENDED = "The item has ended since the job changed it."
THERE_AGAIN = "The item was written again after the job deleted it."
NO_HISTORY = "The state before the job is no longer in the item's history."


_EqualVersions: TypeAlias = Mapping[tuple[Address, int | None], int | None]
"""Versions that undos wrote, and the earlier versions that these restored."""


@dataclass(slots=True)
class _UndoPlan:
    """A job's changes to undo, with the writes, and those to skip."""

    undone: list[Change] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)
    skipped: list[Change] = field(default_factory=list)

    def undo(self, change: Change, write: Write) -> None:
        self.undone.append(replace(change, state=ChangeState.UNDONE, state_reason=None))
        self.writes.append(write)

    def skip(self, change: Change, reason: str) -> None:
        self.skipped.append(replace(change, state_reason=reason))


class UndoService:
    """Undoes jobs on behalf of one caller."""

    def __init__(
        self,
        database: Database,
        jobs_: JobService,
        writer: ItemWriter,
        planner: WritePlanner,
        clock: Clock,
    ) -> None:
        self._database = database
        self._jobs = jobs_
        self._writer = writer
        self._planner = planner
        self._clock = clock

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make the service from a process's resources."""
        return cls(
            resources.database,
            JobService.build(resources),
            ItemWriter.build(resources),
            WritePlanner.build(resources),
            resources.clock,
        )

    async def undo(self, access: Access, job_id: str) -> JobRecord:
        """Revert every change of a job whose item has not changed since; return the job.

        A repeated undo considers only the changes that were skipped. Raises JobNotFoundError,
        JobStateError, ForbiddenError and TooManyConflictsError.
        """

        async def attempt() -> None:
            job = await self._jobs.get(access, job_id)
            if job.state is not State.SUCCEEDED:
                raise JobStateError(job_id, job.state, "only what succeeded can be undone")
            await self._undo(access, job)

        await retry_optimistically(
            attempt, attempts=_ATTEMPTS, on=(OvertakenError, PreconditionFailedError)
        )
        return await self._jobs.get(access, job_id)

    async def _undo(self, access: Access, job: JobRecord) -> None:
        job_access = access_for_job(access, job.id)
        plan = await self._plan(job_access, job.id)
        if not plan.undone and not plan.skipped:
            return
        async for attempt in self._writer.attempts(job_access, plan.writes):
            async with attempt.transaction() as connection:
                results = await attempt.write(connection)
                undone = [_with_version(change, results) for change in plan.undone]
                if not await repository.update(
                    connection, job.id, [*undone, *plan.skipped], seen=ChangeState.APPLIED
                ):
                    raise OvertakenError
                present = await jobs.find(connection, job.id) or job
                result = self._result(present, access, plan)
                succeeded = State.SUCCEEDED
                if not await jobs.settle(connection, job.id, succeeded, succeeded, result):
                    raise JobStateError(job.id, succeeded, "it was taken up again just now")

    def _result(self, job: JobRecord, access: Access, plan: _UndoPlan) -> JsonObject:
        """Return the job's result with the counts of this undo and earlier ones."""
        result = job.result_object
        before = result.get("undo", {}).get("counts", {}).get("undone", 0)
        counts = {"undone": before + len(plan.undone), "skipped": len(plan.skipped)}
        undo = {"counts": counts, "by": access.actor, "at": self._clock.now().isoformat()}
        return {**result, "undo": undo}

    async def _plan(self, access: Access, job_id: str) -> _UndoPlan:
        async with self._database.connection(access.root) as connection:
            changes = await repository.find(connection, job_id, ChangeState.APPLIED)
            before = {change.address: await _find_before(connection, change) for change in changes}
            undone = await repository.find_undone(connection, before)
        equal = {(undo.address, undo.version_undone): undo.version_before for undo in undone}
        present = await self._planner.find_items(access, before)
        plan = _UndoPlan()
        for change in changes:
            item, past = present.get(change.address), before[change.address]
            if reason := _reason_to_skip(change, item, past, equal):
                plan.skip(change, reason)
            else:
                plan.undo(change, await self._revert(access, change, item, past))
        return plan

    async def _revert(
        self, access: Access, change: Change, item: Item | None, past: ItemVersion | None
    ) -> Write:
        """Return the write that reverts a change; a lifetime, which has no history, restarts."""
        precondition = Precondition.at(item.version if item else None)
        if past is None:
            access.require(change.namespace, Verb.DELETE)
            return Delete(change.address, precondition)
        ttl = to_duration(change.ttl_seconds) or Ttl.NONE
        return await self._writer.prepare(access, Put.restoring(past, precondition, ttl))


async def _find_before(connection: Connection, change: Change) -> ItemVersion | None:
    """Return the state that a change replaced, if there was one."""
    if change.version_before is None:
        return None
    return await history_repository.find_version(connection, change.address, change.version_before)


def _with_version(change: Change, results: Mapping[Address, PutResult]) -> Change:
    """Return an undone change with the version that restored the state before it."""
    restored = results.get(change.address)
    return replace(change, version_undone=restored.version if restored else None)


def _reason_to_skip(
    change: Change, item: Item | None, past: ItemVersion | None, equal: _EqualVersions
) -> str | None:
    """Return why a change cannot be undone, or None."""
    if change.action != "insert" and (past is None or past.value is None):
        return NO_HISTORY
    if change.action == "delete":
        return None if item is None else THERE_AGAIN
    if item is None:
        return ENDED
    version: int | None = item.version
    while (before := equal.get((change.address, version))) is not None:
        version = before  # a later job changed the item, and was undone
    return None if version == change.version_after else CHANGED
