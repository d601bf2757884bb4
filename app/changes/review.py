"""What a person does with the changes that a job proposed: read them, apply or discard them."""

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from app.auth.access import Access, Verb
from app.changes import repository as stored
from app.changes.applier import access_for_job, counted
from app.changes.duplicate_finder import DuplicateFinder, DuplicateFoundError
from app.changes.duplicates import DuplicateIndex
from app.changes.repository import ChangeState, ItemChange
from app.changes.write_planner import WritePlanner, as_applied, check_versions
from app.clock import Clock
from app.conversations.types import Edit, Memory
from app.conversations.value_format import read_value
from app.db.database import Connection, Database, Row
from app.db.optimistic import TooManyConflictsError
from app.extraction.verbatim import KIND
from app.http.conditional import PreconditionFailedError
from app.jobs import repository as jobs
from app.jobs.errors import JobStateError
from app.jobs.record import JobRecord, State
from app.jobs.service import JobService
from app.pagination import Page
from app.resources import Resources
from app.store.types import Address, PutResult
from app.store.writer import ItemWriter

_ROUNDS = 5
"""Times that what others changed meanwhile is looked at anew."""

OUTDATED = "The item was changed since this was proposed."
UNFOUNDED = "A memory that this rests on was changed since it was proposed."
REPEATED = "A memory that says the same was written since this was proposed."


@dataclass(slots=True)
class _Sorted:
    """A job's changes: those that can be applied, and those that cannot any more."""

    fitting: list[ItemChange] = field(default_factory=list)
    rejected: list[ItemChange] = field(default_factory=list)

    def reject(self, change: ItemChange, reason: str) -> None:
        self.rejected.append(replace(change, state=ChangeState.REJECTED, outcome=reason))


class ReviewService:
    """Reviews on behalf of one caller."""

    def __init__(
        self,
        database: Database,
        jobs_: JobService,
        writer: ItemWriter,
        planner: WritePlanner,
        duplicates: DuplicateFinder,
        clock: Clock,
    ) -> None:
        self._database = database
        self._jobs = jobs_
        self._writer = writer
        self._planner = planner
        self._duplicates = duplicates
        self._clock = clock

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make the service from a process's resources."""
        return cls(
            resources.database,
            JobService.build(resources),
            ItemWriter.build(resources),
            WritePlanner.build(resources),
            DuplicateFinder.build(resources),
            resources.clock,
        )

    async def list_changes(
        self, access: Access, job_id: str, *, after: int, limit: int
    ) -> Page[Row]:
        """Return a page of a job's changes behind a number, with what was there before."""
        job = await self._jobs.get(access, job_id)
        access.authorize(access.relative(job.namespace), Verb.READ)
        async with self._database.connection(access.root) as connection:
            return await stored.find_page(connection, job_id, after=after, limit=limit)

    async def apply(self, access: Access, job_id: str) -> JobRecord:
        """Apply what a job proposed, but not to items that were changed since; return the job.

        Raises JobNotFoundError, JobStateError, ForbiddenError and TooManyConflictsError.
        """
        known: list[Memory] = []
        for _ in range(_ROUNDS):
            job = await self._awaiting_review(access, job_id)
            try:
                await self._apply(access, job, known)
            except PreconditionFailedError:
                continue  # an item was changed since it was looked at
            except DuplicateFoundError as error:
                known += error.memories
                continue
            return await self._jobs.get(access, job_id)
        raise TooManyConflictsError

    async def discard(self, access: Access, job_id: str) -> JobRecord:
        """Let what a job proposed be forgotten and the job be cancelled; return the job.

        Raises JobNotFoundError, JobStateError and ForbiddenError.
        """
        job = await self._awaiting_review(access, job_id)
        async with self._database.transaction(access.root) as connection:
            proposed = await stored.find(connection, job_id, ChangeState.PROPOSED)
            for change in proposed:
                access.authorize(access.relative(change.namespace), Verb.WRITE)
            discarded = (replace(change, state=ChangeState.DISCARDED) for change in proposed)
            await stored.mark(connection, job_id, discarded, seen=ChangeState.PROPOSED)
            result = self._decided(job, access, "discarded")
            await self._settle(connection, job, State.CANCELLED, result)
        return await self._jobs.get(access, job_id)

    async def _awaiting_review(self, access: Access, job_id: str) -> JobRecord:
        job = await self._jobs.get(access, job_id)
        if job.state is not State.AWAITING_REVIEW:
            raise JobStateError(job_id, job.state, "it has no changes to decide about")
        return job

    async def _apply(self, access: Access, job: JobRecord, known: Sequence[Memory]) -> None:
        job_access = access_for_job(access, job.id)
        sorted_ = await self._sorted(access, job.id, known)
        prepared = await self._planner.prepare(job_access, sorted_.fitting)
        for change, reason in prepared.refused:
            sorted_.reject(change, reason)
        sought = await self._duplicates.prepare(access, _compared(prepared.changes))
        own = {change.address for change in prepared.changes}
        basis = {a: v for a, v in _basis(prepared.changes).items() if a not in own}

        async def end(connection: Connection, written: Mapping[Address, PutResult]) -> None:
            await check_versions(connection, basis, self._clock.now())
            if found := await self._duplicates.find(connection, sought, leaving_out=own):
                raise DuplicateFoundError(found)
            applied = [as_applied(change, written) for change in prepared.changes]
            decided = [*applied, *sorted_.rejected]
            await stored.mark(connection, job.id, decided, seen=ChangeState.PROPOSED)
            result = self._decided(job, access, "applied")
            counts = result["counts"]
            rejected = counts["rejected"] + len(sorted_.rejected)
            result["counts"] = {**counts, **counted(applied), "rejected": rejected}
            await self._settle(connection, job, State.SUCCEEDED, result)

        await self._writer.write(job_access, prepared.writes, in_transaction=end)

    async def _sorted(self, access: Access, job_id: str, known: Sequence[Memory]) -> _Sorted:
        async with self._database.connection(access.root) as connection:
            proposed = await stored.find(connection, job_id, ChangeState.PROPOSED)
        basis = _basis(proposed)
        addresses = {change.address for change in proposed} | basis.keys()
        items = await self._planner.present(access, addresses)
        versions = {address: item.version for address, item in items.items()}
        repeated = await asyncio.to_thread(_repeating, proposed, known)
        sorted_ = _Sorted()
        for change in proposed:
            if versions.get(change.address) != change.version_before:
                sorted_.reject(change, OUTDATED)
            elif any(versions.get(Address(n, key)) != version for n, key, version in change.basis):
                sorted_.reject(change, UNFOUNDED)
            elif change.address in repeated:
                sorted_.reject(change, REPEATED)
            else:
                sorted_.fitting.append(change)
        return sorted_

    def _decided(self, job: JobRecord, access: Access, decision: str) -> dict[str, Any]:
        """Return the job's result with what was decided, by whom and when."""
        result: dict[str, Any] = job.result_object
        decided = {"decision": decision, "by": access.actor, "at": self._clock.now().isoformat()}
        return {**result, "review": {**result["review"], **decided}}

    async def _settle(
        self, connection: Connection, job: JobRecord, state: State, result: Mapping[str, Any]
    ) -> None:
        if not await jobs.settle(connection, job.id, State.AWAITING_REVIEW, state, result):
            raise JobStateError(job.id, state, "somebody else decided about it just now")


def _repeating(changes: Iterable[ItemChange], known: Sequence[Memory]) -> set[Address]:
    """Return the addresses of inserts that repeat what is known."""
    memories = DuplicateIndex(known)
    inserts = [change for change in changes if change.action == "insert"] if known else []
    edits = [(change.address, _edit(change)) for change in inserts]
    return {
        address
        for address, edit in edits
        if memories.find_duplicate(edit.kind, edit.content or {}) is not None
    }


def _basis(changes: Iterable[ItemChange]) -> dict[Address, int]:
    """Return the versions of the items that changes rest on."""
    return {Address(n, key): version for change in changes for n, key, version in change.basis}


def _compared(changes: Sequence[ItemChange]) -> list[Edit]:
    """Return the inserts that must not repeat anything; messages may."""
    return [
        _edit(change) for change in changes if change.action == "insert" and change.kind != KIND
    ]


def _edit(change: ItemChange) -> Edit:
    _, kind, content = read_value(json.loads(change.value or "{}"))
    return Edit(
        memory_id=change.key,
        kind=kind,
        content=content,
        namespace=change.namespace,
        key=change.key,
    )
