"""The path from a job's edits to the store, in one transaction, or to a review.

`ChangeApplier` turns edits into changes, `WritePlanner` turns changes into writes.
"""

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import chain
from typing import Self, TypeAlias

from app.auth.access import Access, Verb
from app.changes import repository
from app.changes.duplicates import DuplicateFinder
from app.changes.repository import Action, Change
from app.clock import Clock
from app.conversations.memories import Edit, Memory, MemoryFormat, Rejection, write_value
from app.conversations.messages import SourceClass, Turn, lowest_class
from app.db.database import Connection, Database
from app.errors import InvalidRequestError
from app.http.headers import Precondition, PreconditionFailedError
from app.jobs import repository as jobs
from app.jobs.kind import JobRun
from app.jobs.record import State
from app.json_values import JsonObject, to_json_text
from app.namespaces import StoredNamespace
from app.resources import Resources
from app.store import repository as items
from app.store import source_repository
from app.store.types import (
    NO_METADATA,
    Address,
    Delete,
    Item,
    ItemMetadata,
    Put,
    Ttl,
    Write,
    source_text,
)
from app.store.writer import ItemWriter

InSameTransaction: TypeAlias = Callable[[Connection], Awaitable[None]]
"""Further statements of the transaction that ends a job."""

MAX_MESSAGE_IDS = 500
"""Maximum message ids in a memory's source, which has at most 1,000 JSON values."""

MAX_MEMORY_KEYS = 300
"""Maximum keys of memories in a memory's source."""

MAX_EARLIER_THREADS, MAX_EARLIER_IDS = 10, 100
"""Maximum other threads in a memory's source, and ids of their messages."""

_COUNTS: Mapping[Action, str] = {"insert": "inserted", "update": "updated", "delete": "deleted"}

_UNSAFE = "Another change of the job cannot be stored, and this one may rest on it."

_CONVERSATION_MEMBERS = ("thread_id", "position", "message_ids")


@dataclass(frozen=True, slots=True)
class Provenance:
    """The origin of a job's memories.

    `turns` are the messages, the first `context_turns` only as context; `positions` are their
    positions in the thread.
    """

    job_id: str
    model: str | None = None
    prompt_version: str | None = None
    manager: str | None = None
    thread_id: str | None = None
    positions: Mapping[str, int] | None = None
    turns: Sequence[Turn] = ()
    context_turns: int = 0
    ttl_seconds: float | None = None

    def source(self, message_ids: Sequence[str], memories: Sequence[Memory] = ()) -> JsonObject:
        """Return the source of a memory from some messages, and from other memories."""
        positions = [p for id_ in message_ids if (p := (self.positions or {}).get(id_)) is not None]
        members = {
            "thread_id": self.thread_id,
            "position": min(positions, default=None),
            "message_ids": list(message_ids[:MAX_MESSAGE_IDS]),
            "memory_keys": [memory.key for memory in memories[:MAX_MEMORY_KEYS] if memory.key],
            "job_id": self.job_id,
            "model": self.model,
            "prompt_version": self.prompt_version,
            "manager": self.manager,
        }
        return {name: value for name, value in members.items() if value not in (None, [])}

    def find_turns(self, message_ids: Sequence[str]) -> Sequence[Turn]:
        """Return the messages with some ids; if there are none, all that were extracted from."""
        named = [turn for turn in self.turns if turn.id in set(message_ids)]
        return named or self.turns[self.context_turns :]

    def class_of(self, edit: Edit) -> SourceClass | None:
        """Return the least trustworthy class of an edit's sources."""
        turns = [turn.source_class for turn in self.find_turns(edit.message_ids)]
        memories = [*([edit.before] if edit.before else []), *edit.sources]
        return lowest_class([*turns, *(memory.source_class for memory in memories)])


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """A job's edits and the rest of its result, to which `details` are added.

    `repeated` are edits that say again what memories say, and move the times of these.
    The edits wait for a review if there is a `review_reason`. Inserts of messages may repeat stored
    ones, so they are not checked for duplicates.
    """

    edits: Sequence[Edit]
    provenance: Provenance
    repeated: Sequence[Edit] = ()
    unchanged: int = 0
    rejected: Sequence[Rejection] = ()
    review_reason: str | None = None
    details: Mapping[str, object] | None = None
    checks_duplicates: bool = True


@dataclass(slots=True)
class WritePlan:
    """Changes with their writes, and changes that cannot be stored, with the reasons."""

    changes: list[Change] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)
    rejected: list[tuple[Change, str]] = field(default_factory=list)

    @property
    def addresses(self) -> set[Address]:
        """The items that are written."""
        return {change.address for change in self.changes}

    def without_deletes(self) -> "WritePlan":
        """Reject the deletes, too: a rejected change may have been meant to keep their content."""
        rest = WritePlan(rejected=self.rejected)
        for change, write in zip(self.changes, self.writes, strict=True):
            if change.action == "delete":
                rest.rejected.append((change, _UNSAFE))
            else:
                rest.changes.append(change)
                rest.writes.append(write)
        return rest


class ChangeApplier:
    """Ends jobs whose outcome is changes of items."""

    def __init__(
        self,
        database: Database,
        writer: ItemWriter,
        planner: "WritePlanner",
        duplicates: DuplicateFinder,
    ) -> None:
        self._database = database
        self._writer = writer
        self._planner = planner
        self._duplicates = duplicates

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make the applier from a process's resources."""
        return cls(
            resources.database,
            ItemWriter.build(resources),
            WritePlanner.build(resources),
            DuplicateFinder.build(resources),
        )

    async def apply(
        self, run: JobRun, outcome: JobOutcome, *, in_transaction: InSameTransaction | None = None
    ) -> None:
        """Write an outcome and end the job with it, or let it wait for a review.

        Raises, with nothing changed: DuplicateFoundError if inserts repeat memories that the
        edits do not know of; PreconditionFailedError if an item was changed since it was read;
        JobLostError; and the errors of embedding and storing.
        """
        access = access_for_job(run.job.access, run.job.id)
        waits = outcome.review_reason is not None
        plan = await self._planner.plan(access, _to_changes(outcome))
        inserts = outcome.edits if outcome.checks_duplicates else ()
        queries = await self._duplicates.prepare(access, inserts)
        async with self._database.connection(access.root) as connection:
            # A duplicate that is found here costs no embedding and no rollback.
            await self._duplicates.check(connection, queries, ignoring=plan.addresses)
        async for attempt in self._writer.attempts(access, [] if waits else plan.writes):
            async with attempt.transaction() as connection:
                results = await attempt.write(connection)
                await self._duplicates.check(connection, queries, ignoring=plan.addresses)
                changes = plan.changes
                if not waits:
                    changes = [change.to_applied(results) for change in changes]
                    if said := _said_again(outcome):
                        await source_repository.extend_said(connection, said)
                result = _result(outcome, changes, plan.rejected)
                event = "proposed_for_review" if waits else "applied"
                state = State.AWAITING_REVIEW if waits else State.SUCCEEDED
                await repository.replace_all(connection, run.job.id, changes)
                await jobs.add_event(connection, run.job, event, result["counts"])
                await run.finish(connection, result, state)
                if in_transaction is not None:
                    await in_transaction(connection)


class WritePlanner:
    """Turns changes into writes on behalf of one caller."""

    def __init__(self, database: Database, writer: ItemWriter, clock: Clock) -> None:
        self._database = database
        self._writer = writer
        self._clock = clock

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make the planner from a process's resources."""
        return cls(resources.database, ItemWriter.build(resources), resources.clock)

    async def plan(self, access: Access, changes: Sequence[Change]) -> WritePlan:
        """Return the writes of changes, which are checked like a client's.

        Raises PreconditionFailedError if an item was changed since it was read, and ForbiddenError.
        """
        present = await self.find_items(access, [change.address for change in changes])
        plan = WritePlan()
        for proposed in changes:
            item = present.get(proposed.address)
            version = item.version if item else None
            if version != proposed.version_before:
                raise PreconditionFailedError(proposed.address.description, version)
            change = _with_kept_fields(proposed, item) if item else proposed
            try:
                write = await self._write(access, change, item)
            except InvalidRequestError as error:
                plan.rejected.append((change, error.detail))
            else:
                plan.changes.append(change)
                plan.writes.append(write)
        return plan.without_deletes() if plan.rejected else plan

    async def find_items(self, access: Access, addresses: Iterable[Address]) -> dict[Address, Item]:
        """Return the items that exist at some addresses."""
        async with self._database.connection(access.root) as connection:
            return await items.find_many(connection, addresses, self._clock.now())

    async def _write(self, access: Access, change: Change, item: Item | None) -> Write:
        precondition = Precondition.at(change.version_before)
        if change.value is None:
            access.require(change.namespace, Verb.DELETE)
            return Delete(change.address, precondition)
        value, metadata = json.loads(change.value), _metadata(change, item)
        if item is not None:
            put = Put.replacing(item, value=value, metadata=metadata)
        else:
            ttl = to_duration(change.ttl_seconds) or Ttl.DEFAULT
            put = Put(change.address, value, metadata, ttl=ttl, precondition=precondition)
        return await self._writer.prepare(access, put)


def access_for_job(access: Access, job_id: str) -> Access:
    """Return an access whose writes name the job in the history of items."""
    return replace(access, actor=f"{access.actor} {job_id}")


def count_changes(changes: Iterable[Change]) -> dict[str, int]:
    """Return the numbers of inserts, updates, and deletes."""
    actions = Counter(change.action for change in changes)
    return {name: actions[action] for action, name in _COUNTS.items()}


async def require_versions(
    connection: Connection, versions: Mapping[Address, int | None], now: datetime
) -> None:
    """Lock items until the transaction ends; PreconditionFailedError unless at these versions."""
    locked = await items.lock(connection, versions, now)
    for address, version in versions.items():
        found = locked[address].version if address in locked else None
        if found != version:
            raise PreconditionFailedError(address.description, found)


def to_duration(seconds: float | None) -> timedelta | None:
    """Return a lifetime given in seconds."""
    return None if seconds is None else timedelta(seconds=seconds)


def _to_changes(outcome: JobOutcome) -> list[Change]:
    changes = [_to_change(edit, outcome.provenance) for edit in outcome.edits]
    if outcome.review_reason is not None:
        return changes
    return [replace(change, basis=()) for change in changes]  # only a review checks the basis


def _to_change(edit: Edit, provenance: Provenance) -> Change:
    before, value = edit.before, None
    turns = provenance.find_turns(edit.message_ids)
    memories = [*([before] if before else []), *edit.sources]
    said = _said(turns, memories)
    if edit.content is not None:
        format_ = before.format if before else MemoryFormat.MEMORY
        value = to_json_text(write_value(format_, edit.kind, edit.content))
    return Change(
        address=Address(edit.namespace or StoredNamespace(""), edit.key or ""),
        action=edit.action,
        kind=edit.kind,
        value=value,
        importance=edit.importance,
        valid_from=edit.valid_from,
        said_first=said and said[0],
        said_last=said and said[1],
        source_class=provenance.class_of(edit),
        source=None if value is None else provenance.source(edit.message_ids, edit.sources),
        ttl_seconds=None if before else provenance.ttl_seconds,
        reason=edit.reason,
        questions=edit.questions,
        version_before=before.version if before else None,
        basis=edit.basis,
    )


def _said(turns: Iterable[Turn], memories: Iterable[Memory]) -> tuple[datetime, datetime] | None:
    """Return when sources were said, for the first and the last time; None if that is unknown."""
    of_memories = ((memory.said_first, memory.said_last) for memory in memories)
    times = [*(turn.said_at for turn in turns), *chain.from_iterable(of_memories)]
    known = [time for time in times if time is not None]
    return (min(known), max(known)) if known else None


def _said_again(outcome: JobOutcome) -> dict[tuple[Address, int], tuple[datetime, datetime]]:
    """Return the memories, at versions, that were said again, and the times."""
    found: dict[tuple[Address, int], tuple[datetime, datetime]] = {}
    for edit in outcome.repeated:
        is_covering = edit.sources and not edit.message_ids
        turns = () if is_covering else outcome.provenance.find_turns(edit.message_ids)
        said = _said(turns, edit.sources)
        if said is None or edit.namespace is None or edit.before is None:
            continue
        place = Address(edit.namespace, edit.key or ""), edit.before.version or 0
        first, last = found.get(place, said)
        found[place] = min(first, said[0]), max(last, said[1])
    return found


def _with_kept_fields(change: Change, item: Item) -> Change:
    """Return a change with the item's lifetime, and with the messages of its earlier source."""
    source = change.source
    if source and item.metadata.source is not None:
        source = _join_sources(source, json.loads(item.metadata.source))
    ttl = None if item.ttl is None else item.ttl.total_seconds()
    return replace(change, ttl_seconds=ttl, source=source)


def _join_sources(source: JsonObject, before: JsonObject) -> JsonObject:
    """Return the source of an updated memory, which still has content of earlier messages.

    Messages of other threads are listed under `earlier`, the latest first. A client may have
    written anything into these members; only lists of messages are kept.
    """
    known = {name: before[name] for name in _CONVERSATION_MEMBERS if name in before}
    latest: list[JsonObject] = []
    if not source.get("message_ids"):
        joined = {**source, **known}
    elif known.get("thread_id") == source.get("thread_id"):
        ids = dict.fromkeys([*_message_ids(known), *source["message_ids"]])
        positions = [one["position"] for one in (known, source) if one.get("position") is not None]
        joined = {**source, "message_ids": list(ids)[-MAX_MESSAGE_IDS:]}
        joined |= {"position": min(positions)} if positions else {}
    else:
        joined, latest = source, [known]
    listed = before.get("earlier")
    earlier = [*latest, *(listed if isinstance(listed, list) else ())][:MAX_EARLIER_THREADS]
    room, kept = MAX_EARLIER_IDS, list[JsonObject]()
    for one in earlier:
        ids_of_one = _message_ids(one)[:room]
        room -= len(ids_of_one)
        if ids_of_one:
            kept.append({"thread_id": one.get("thread_id"), "message_ids": ids_of_one})
    return {**joined, "earlier": kept} if kept else joined


def _message_ids(source: object) -> list[str]:
    ids = source.get("message_ids") if isinstance(source, dict) else None
    return [id_ for id_ in ids if isinstance(id_, str)] if isinstance(ids, list) else []


def _metadata(change: Change, item: Item | None) -> ItemMetadata:
    """Return an item's metadata after a change."""
    before = item.metadata if item else NO_METADATA
    valid_to = before.valid_to
    if valid_to and change.valid_from and change.valid_from.is_after(valid_to):
        valid_to = None  # it was the end of the earlier fact
    return replace(
        before,
        importance=change.importance,
        valid_from=change.valid_from,
        valid_to=valid_to,
        said_first=change.said_first,
        said_last=change.said_last,
        source_class=change.source_class,
        source=source_text(change.source or {}),
        questions=change.questions or before.questions,
    )


def _result(
    outcome: JobOutcome, changes: Sequence[Change], rejected: Sequence[tuple[Change, str]]
) -> JsonObject:
    """Return a job's result."""
    rejections = [
        *outcome.rejected,
        *(Rejection(change.action, reason) for change, reason in rejected),
    ]
    made = changes if outcome.review_reason is None else ()
    counts = {
        **count_changes(made),
        "unchanged": outcome.unchanged,
        "rejected": len(rejections),
    }
    result: JsonObject = {
        "counts": counts,
        "rejected": [rejection.members() for rejection in rejections],
        **(outcome.details or {}),
    }
    if outcome.review_reason is not None:
        result["proposed"] = count_changes(changes)
        result["review"] = {"reason": outcome.review_reason}
    return result
