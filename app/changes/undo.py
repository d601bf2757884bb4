"""Taking back what a job did, as far as nobody has changed it since."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self, TypeAlias

from app.auth.access import Access, Verb
from app.changes import repository as stored
from app.changes.applier import access_for_job
from app.changes.repository import ChangeState, ItemChange
from app.changes.write_planner import WritePlanner, duration
from app.clock import Clock
from app.db.database import Connection, Database
from app.db.optimistic import TooManyConflictsError
from app.http.conditional import Precondition, PreconditionFailedError
from app.jobs import repository as jobs
from app.jobs.errors import JobStateError
from app.jobs.record import JobRecord, State
from app.jobs.service import JobService
from app.namespaces import StoredNamespace
from app.resources import Resources
from app.store import repository
from app.store.types import (
    Address,
    Delete,
    Item,
    ItemVersion,
    Put,
    PutResult,
    Ttl,
    Write,
)
from app.store.writer import ItemWriter

_ROUNDS = 5
"""Times that what others changed meanwhile is looked at anew."""

CHANGED = "The item was changed since the job changed it."
ENDED = "The item has ended since the job changed it."
THERE_AGAIN = "The item was written anew since the job deleted it."
NO_HISTORY = "The state before the job is no longer in the item's history."


_SameAs: TypeAlias = Mapping[tuple[StoredNamespace, str, int | None], int | None]
"""By namespace, key and version: the version that it is the same as, because it was undone to."""


class _OvertakenError(Exception):
    """Somebody else undid the job at the same time."""


@dataclass(slots=True)
class _Sorted:
    """A job's changes: those that are taken back, by what writes, and those that stay."""

    undone: list[ItemChange] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)
    kept: list[ItemChange] = field(default_factory=list)

    def undo(self, change: ItemChange, write: Write) -> None:
        self.undone.append(replace(change, state=ChangeState.UNDONE, outcome=None))
        self.writes.append(write)

    def keep(self, change: ItemChange, reason: str) -> None:
        self.kept.append(replace(change, outcome=reason))


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
        """Take back every change of a job whose item is still as the job left it; return the job.

        What was taken back stays so: undoing again looks only at what was kept. Raises
        JobNotFoundError, JobStateError, ForbiddenError and TooManyConflictsError.
        """
        for _ in range(_ROUNDS):
            job = await self._jobs.get(access, job_id)
            if job.state is not State.SUCCEEDED:
                raise JobStateError(job_id, job.state, "only what succeeded can be undone")
            try:
                await self._undo(access_for_job(access, job_id), access, job)
            except (PreconditionFailedError, _OvertakenError):
                continue  # something was changed since it was looked at
            return await self._jobs.get(access, job_id)
        raise TooManyConflictsError

    async def _undo(self, job_access: Access, access: Access, job: JobRecord) -> None:
        sorted_ = await self._sorted(job_access, job.id)

        async def end(connection: Connection, written: Mapping[Address, PutResult]) -> None:
            every = [*(_restored(change, written) for change in sorted_.undone), *sorted_.kept]
            if not await stored.mark(connection, job.id, every, seen=ChangeState.APPLIED):
                raise _OvertakenError
            result = (await jobs.find(connection, job.id) or job).result_object
            before = result.get("undo", {}).get("counts", {}).get("undone", 0)
            result["undo"] = {
                "counts": {"undone": before + len(sorted_.undone), "skipped": len(sorted_.kept)},
                "by": access.actor,
                "at": self._clock.now().isoformat(),
            }
            succeeded = State.SUCCEEDED
            if not await jobs.settle(connection, job.id, succeeded, succeeded, result):
                raise JobStateError(job.id, succeeded, "it was taken up again just now")

        if sorted_.undone or sorted_.kept:
            await self._writer.write(job_access, sorted_.writes, in_transaction=end)

    async def _sorted(self, access: Access, job_id: str) -> _Sorted:
        async with self._database.connection(access.root) as connection:
            changes = await stored.find(connection, job_id, ChangeState.APPLIED)
            before = {change.address: await _before(connection, change) for change in changes}
            undone = await stored.find_undone(connection, before)
        same = {(c.namespace, c.key, c.version_undone): c.version_before for c in undone}
        items = await self._planner.present(access, before)
        sorted_ = _Sorted()
        for change in changes:
            item, past = items.get(change.address), before[change.address]
            if reason := _objection(change, item, past, same):
                sorted_.keep(change, reason)
            elif past is None:
                access.require(change.namespace, Verb.DELETE)
                version = item.version if item else None
                sorted_.undo(change, Delete(change.address, Precondition.at(version)))
            else:
                sorted_.undo(change, await self._restoring(access, change, item, past))
        return sorted_

    async def _restoring(
        self, access: Access, change: ItemChange, item: Item | None, past: ItemVersion
    ) -> Write:
        """Return the write of an earlier state; its lifetime, which no history has, starts anew."""
        ttl = duration(change.ttl_seconds) or Ttl.NONE
        precondition = Precondition.at(item.version if item else None)
        return await self._writer.prepare(access, Put.restoring(past, precondition, ttl))


async def _before(connection: Connection, change: ItemChange) -> ItemVersion | None:
    """Return the state in history that a change replaced, if there was one."""
    if change.version_before is None:
        return None
    return await repository.find_version(connection, change.address, change.version_before)


def _restored(change: ItemChange, written: Mapping[Address, PutResult]) -> ItemChange:
    """Return an undone change with the version that brought back what was before it."""
    restored = written.get(change.address)
    return replace(change, version_undone=restored.version if restored else None)


def _objection(
    change: ItemChange, item: Item | None, past: ItemVersion | None, same: _SameAs
) -> str | None:
    """Return why a change has to stay, or None."""
    if change.action != "insert" and (past is None or past.value is None):
        return NO_HISTORY
    if change.action == "delete":
        return None if item is None else THERE_AGAIN
    if item is None:
        return ENDED
    version: int | None = item.version
    while (before := same.get((*change.address, version))) is not None:
        version = before  # a job came after this one, and was undone
    return None if version == change.version_after else CHANGED
