"""Reviews of the changes that a job proposed: they are listed, applied, or discarded."""

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from app.auth.access import Access, Verb
from app.changes import repository
from app.changes.apply import WritePlanner, access_for_job, count_changes, require_versions
from app.changes.duplicates import DuplicateFinder, DuplicateFoundError, DuplicateIndex
from app.changes.repository import Change, ChangeState, ListedChange
from app.clock import Clock
from app.conversations.kinds import MESSAGE_KIND
from app.conversations.memories import Edit, Memory, read_value
from app.db.database import Connection, Database, OvertakenError, retry_optimistically
from app.db.pages import Page
from app.http.headers import PreconditionFailedError
from app.jobs import repository as jobs
from app.jobs.record import JobRecord, State
from app.jobs.service import JobService, JobStateError
from app.json_values import JsonObject
from app.resources import Resources
from app.store.types import Address
from app.store.writer import ItemWriter

_ATTEMPTS = 5

OUTDATED = "The item was changed since this was proposed."
UNFOUNDED = "A memory that this rests on was changed since it was proposed."
REPEATED = "A memory that says the same was written since this was proposed."


@dataclass(slots=True)
class _Assessment:
    """A job's proposed changes, divided into those that can still be applied and the others."""

    applicable: list[Change] = field(default_factory=list)
    rejected: list[Change] = field(default_factory=list)

    def reject(self, change: Change, reason: str) -> None:
        rejected = replace(change, state=ChangeState.REJECTED, state_reason=reason)
        self.rejected.append(rejected)


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
    ) -> Page[ListedChange]:
        """Return a page of a job's changes behind a number, with the values before them."""
        job = await self._jobs.get(access, job_id)
        access.authorize(access.relative(job.namespace), Verb.READ)
        async with self._database.connection(access.root) as connection:
            return await repository.find_page(connection, job_id, after=after, limit=limit)

    async def apply(self, access: Access, job_id: str) -> JobRecord:
        """Apply a job's proposed changes, except to items that have changed; return the job.

        Raises JobNotFoundError, JobStateError, ForbiddenError and TooManyConflictsError.
        """
        known: list[Memory] = []

        async def attempt() -> None:
            job = await self._find_reviewable(access, job_id)
            try:
                await self._apply(access, job, known)
            except DuplicateFoundError as error:
                known.extend(error.memories)
                raise OvertakenError from error

        await retry_optimistically(
            attempt, attempts=_ATTEMPTS, on=(OvertakenError, PreconditionFailedError)
        )
        return await self._jobs.get(access, job_id)

    async def discard(self, access: Access, job_id: str) -> JobRecord:
        """Discard a job's proposed changes and cancel the job; return the job.

        Raises JobNotFoundError, JobStateError and ForbiddenError.
        """
        job = await self._find_reviewable(access, job_id)
        async with self._database.transaction(access.root) as connection:
            proposed = await repository.find(connection, job_id, ChangeState.PROPOSED)
            for change in proposed:
                access.require(change.namespace, Verb.WRITE)
            discarded = (replace(change, state=ChangeState.DISCARDED) for change in proposed)
            await repository.update(connection, job_id, discarded, seen=ChangeState.PROPOSED)
            result = self._result(job, access, "discarded")
            await self._settle(connection, job, State.CANCELLED, result)
        return await self._jobs.get(access, job_id)

    async def _find_reviewable(self, access: Access, job_id: str) -> JobRecord:
        job = await self._jobs.get(access, job_id)
        if job.state is not State.AWAITING_REVIEW:
            raise JobStateError(job_id, job.state, "it has no changes to decide about")
        return job

    async def _apply(self, access: Access, job: JobRecord, known: Sequence[Memory]) -> None:
        job_access = access_for_job(access, job.id)
        assessment = await self._assess(access, job.id, known)
        plan = await self._planner.plan(job_access, assessment.applicable)
        for change, reason in plan.rejected:
            assessment.reject(change, reason)
        queries = await self._duplicates.prepare(access, _inserts_to_check(plan.changes))
        basis = _basis(plan.changes)
        for address in plan.addresses & basis.keys():
            del basis[address]
        async for attempt in self._writer.attempts(job_access, plan.writes):
            async with attempt.transaction() as connection:
                results = await attempt.write(connection)
                await require_versions(connection, basis, self._clock.now())
                await self._duplicates.check(connection, queries, ignoring=plan.addresses)
                applied = [change.to_applied(results) for change in plan.changes]
                changes = [*applied, *assessment.rejected]
                await repository.update(connection, job.id, changes, seen=ChangeState.PROPOSED)
                result = self._result(job, access, "applied")
                counts = result["counts"]
                rejected = counts["rejected"] + len(assessment.rejected)
                result["counts"] = {**counts, **count_changes(applied), "rejected": rejected}
                await self._settle(connection, job, State.SUCCEEDED, result)

    async def _assess(self, access: Access, job_id: str, known: Sequence[Memory]) -> _Assessment:
        async with self._database.connection(access.root) as connection:
            proposed = await repository.find(connection, job_id, ChangeState.PROPOSED)
        addresses = {change.address for change in proposed} | _basis(proposed).keys()
        items = await self._planner.find_items(access, addresses)
        versions = {address: item.version for address, item in items.items()}
        duplicates = await asyncio.to_thread(_find_duplicates, proposed, known)
        assessment = _Assessment()
        for change in proposed:
            if versions.get(change.address) != change.version_before:
                assessment.reject(change, OUTDATED)
            elif any(versions.get(Address(n, key)) != version for n, key, version in change.basis):
                assessment.reject(change, UNFOUNDED)
            elif change.address in duplicates:
                assessment.reject(change, REPEATED)
            else:
                assessment.applicable.append(change)
        return assessment

    def _result(self, job: JobRecord, access: Access, decision: str) -> JsonObject:
        """Return the job's result with the decision."""
        result = job.result_object
        decided = {"decision": decision, "by": access.actor, "at": self._clock.now().isoformat()}
        return {**result, "review": {**result["review"], **decided}}

    async def _settle(
        self, connection: Connection, job: JobRecord, state: State, result: Mapping[str, object]
    ) -> None:
        if not await jobs.settle(connection, job.id, State.AWAITING_REVIEW, state, result):
            raise JobStateError(job.id, state, "another request has just decided about it")


def _find_duplicates(changes: Iterable[Change], known: Sequence[Memory]) -> set[Address]:
    """Return the addresses of inserts that repeat known memories."""
    memories = DuplicateIndex(known)
    inserts = [change for change in changes if change.action == "insert"] if known else []
    edits = [(change.address, _to_edit(change)) for change in inserts]
    return {
        address
        for address, edit in edits
        if memories.find_duplicate(edit.kind, edit.content or {}) is not None
    }


def _basis(changes: Iterable[Change]) -> dict[Address, int]:
    """Return the items on which changes rely, with their versions."""
    return {Address(n, key): version for change in changes for n, key, version in change.basis}


def _inserts_to_check(changes: Sequence[Change]) -> list[Edit]:
    """Return the inserts that must not repeat a memory; messages may."""
    return [
        _to_edit(change)
        for change in changes
        if change.action == "insert" and change.kind != MESSAGE_KIND
    ]


def _to_edit(change: Change) -> Edit:
    _, kind, content = read_value(json.loads(change.value or "{}"))
    return Edit(
        memory_id=change.address.key,
        kind=kind,
        content=content,
        namespace=change.namespace,
        key=change.address.key,
    )
