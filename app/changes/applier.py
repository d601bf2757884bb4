"""Writing what a job came to, all of it in one transaction, or keeping it for a review."""

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, TypeAlias

from app.auth.access import Access
from app.changes import repository as stored
from app.changes.duplicate_finder import DuplicateFinder, DuplicateFoundError
from app.changes.repository import Action, ItemChange
from app.changes.write_planner import WritePlanner, as_applied
from app.conversations.types import Edit, MemoryFormat, Rejection
from app.conversations.value_format import write_value
from app.db.database import Connection, Database
from app.jobs import repository as jobs
from app.jobs.record import State
from app.jobs.run import JobRun
from app.namespaces import StoredNamespace
from app.resources import Resources
from app.store.types import Address, PutResult
from app.store.writer import ItemWriter

InSameTransaction: TypeAlias = Callable[[Connection], Awaitable[None]]
"""What else the last transaction of a job does."""

_DONE: Mapping[Action, str] = {"insert": "inserted", "update": "updated", "delete": "deleted"}


MAX_MESSAGE_IDS = 500
"""Maximum message ids in a memory's source, which has at most 1,000 JSON values."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a job's memories come from; `positions` are the messages' places in the thread."""

    job_id: str
    model: str | None = None
    prompt_version: str | None = None
    manager: str | None = None
    thread_id: str | None = None
    positions: Mapping[str, int] | None = None
    ttl_seconds: float | None = None

    def source(self, message_ids: Sequence[str]) -> dict[str, Any]:
        """Return the source of a memory that some messages state."""
        positions = [p for id_ in message_ids if (p := (self.positions or {}).get(id_)) is not None]
        members = {
            "thread_id": self.thread_id,
            "position": min(positions, default=None),
            "message_ids": list(message_ids[:MAX_MESSAGE_IDS]),
            "job_id": self.job_id,
            "model": self.model,
            "prompt_version": self.prompt_version,
            "manager": self.manager,
        }
        return {name: value for name, value in members.items() if value not in (None, [])}


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """What a job came to; `review` says why it has to wait, `told` goes into its result.

    Inserts that may repeat what is there, as messages do, are not `compared`.
    """

    edits: Sequence[Edit]
    origin: Provenance
    unchanged: int = 0
    rejected: Sequence[Rejection] = ()
    review: str | None = None
    told: Mapping[str, Any] | None = None
    compared: bool = True


class ChangeApplier:
    """Ends jobs whose outcome is changes of items."""

    def __init__(
        self,
        database: Database,
        writer: ItemWriter,
        planner: WritePlanner,
        duplicates: DuplicateFinder,
    ) -> None:
        self._database = database
        self._writer = writer
        self._planner = planner
        self._duplicates = duplicates

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make it from a process's resources."""
        writer, planner = ItemWriter.build(resources), WritePlanner.build(resources)
        return cls(resources.database, writer, planner, DuplicateFinder.build(resources))

    async def apply(
        self, run: JobRun, outcome: JobOutcome, *, also: InSameTransaction | None = None
    ) -> None:
        """Write an outcome and end the job with it, or let it wait for a review.

        Raises, with nothing changed: DuplicateFoundError if inserts repeat memories that the
        edits do not know of; PreconditionFailedError if an item was changed since it was read;
        JobLostError; and the errors of embedding and storing.
        """
        access = access_for_job(run.job.access, run.job.id)
        prepared = await self._planner.prepare(access, _drafted(outcome))
        sought = await self._duplicates.prepare(access, outcome.edits if outcome.compared else ())
        own = {change.address for change in prepared.changes}

        async def check(connection: Connection) -> None:
            if found := await self._duplicates.find(connection, sought, leaving_out=own):
                raise DuplicateFoundError(found)

        async def end(connection: Connection, written: Mapping[Address, PutResult]) -> None:
            await check(connection)
            kept = prepared.changes
            if outcome.review is None:
                kept = [as_applied(change, written) for change in kept]
            result = _result(outcome, kept, prepared.refused)
            await stored.keep(connection, run.job.id, kept)
            await jobs.add_event(connection, run.job, _event(outcome), result["counts"])
            await run.finish(connection, result, _state(outcome))
            if also is not None:
                await also(connection)

        async with self._database.connection(access.root) as connection:
            await check(connection)  # found here, they cost no embedding and no rollback
        writes = prepared.writes if outcome.review is None else []
        await self._writer.write(access, writes, in_transaction=end)


def access_for_job(access: Access, job_id: str) -> Access:
    """Return the access whose writes say in an item's history which job they are of."""
    return replace(access, actor=f"{access.actor} {job_id}")


def counted(changes: Iterable[ItemChange]) -> dict[str, int]:
    """Return how many changes of each sort there are."""
    actions = Counter(change.action for change in changes)
    return {word: actions[action] for action, word in _DONE.items()}


def _drafted(outcome: JobOutcome) -> list[ItemChange]:
    drafts = [_draft(edit, outcome.origin) for edit in outcome.edits]
    return drafts if outcome.review else [replace(draft, basis=()) for draft in drafts]


def _draft(edit: Edit, origin: Provenance) -> ItemChange:
    """Return an edit as a change of the item that holds the memory."""
    before, value = edit.before, None
    if edit.content is not None:
        format_ = before.format if before else MemoryFormat.MEMORY
        value = json.dumps(write_value(format_, edit.kind, edit.content), ensure_ascii=False)
    return ItemChange(
        namespace=edit.namespace or StoredNamespace(""),
        key=edit.key or "",
        action=edit.action,
        kind=edit.kind,
        value=value,
        importance=edit.importance,
        valid_from=edit.valid_from,
        source=None if value is None else origin.source(edit.message_ids),
        ttl_seconds=None if before else origin.ttl_seconds,
        reason=edit.reason,
        version_before=before.version if before else None,
        basis=edit.basis,
    )


def _state(outcome: JobOutcome) -> State:
    return State.SUCCEEDED if outcome.review is None else State.AWAITING_REVIEW


def _event(outcome: JobOutcome) -> str:
    return "applied" if outcome.review is None else "proposed_for_review"


def _result(
    outcome: JobOutcome, kept: Sequence[ItemChange], refused: Sequence[tuple[ItemChange, str]]
) -> dict[str, Any]:
    """Return what a job says of itself: what was done, which may be nothing."""
    rejected = [
        *outcome.rejected,
        *(Rejection(change.action, reason) for change, reason in refused),
    ]
    done = kept if outcome.review is None else ()
    result: dict[str, Any] = {
        "counts": {**counted(done), "unchanged": outcome.unchanged, "rejected": len(rejected)},
        "rejected": [call.members() for call in rejected],
        **(outcome.told or {}),
    }
    if outcome.review is not None:
        result["proposed"] = counted(kept)
        result["review"] = {"reason": outcome.review}
    return result
