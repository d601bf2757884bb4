"""Decisions about threads: appending, flushing, reading, deleting."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from pydantic import TypeAdapter

from app.auth.access import Access, Verb
from app.clock import Clock
from app.conversations.messages import parse_messages, to_turns
from app.db.database import Connection, Database
from app.db.idempotency import IdempotentRequest
from app.db.pages import Page
from app.errors import ConflictError, InvalidRequestError, NotFoundError
from app.extraction.plan import ExtractCommand, ExtractPlan, ExtractPlanner
from app.jobs import repository as jobs_repository
from app.jobs.record import ActiveJob, State
from app.jobs.service import JobService
from app.json_values import JsonObject
from app.resources import Resources
from app.store.types import Item
from app.threads import repository
from app.threads.deduplicate import (
    Deduplication,
    MessageObject,
    count_repeated,
    deduplicate,
    is_position_id,
    position_id,
)
from app.threads.repository import Message, NewMessage, Thread, ThreadRef
from app.threads.schedule import (
    ExtractionSchedule,
    ThreadExtractPlan,
    check_rights,
    require_namespace,
)


class ThreadNotFoundError(NotFoundError):
    """The key sees no thread with this id."""

    code = "thread_not_found"
    title = "Thread not found"

    def __init__(self, thread_id: str) -> None:
        super().__init__(
            f'There is no thread "{thread_id}"; '
            "POST /v1/threads/{thread_id}/messages creates it with its first messages."
        )


class ThreadElsewhereError(ConflictError):
    """The thread belongs to a namespace other than the requested one."""

    code = "thread_elsewhere"
    title = "Thread belongs to another namespace"

    def __init__(self, thread_id: str, labels: list[str]) -> None:
        namespace = json.dumps(labels, ensure_ascii=False)
        super().__init__(
            f'The thread "{thread_id}" belongs to another namespace than {namespace}; '
            "use one thread for each namespace, or delete the thread and send its messages again."
        )


class ThreadWithoutManagerError(ConflictError):
    """The extraction from a thread needs a manager, which was never chosen."""

    code = "thread_without_manager"
    title = "Thread has no manager"

    def __init__(self, thread_id: str) -> None:
        super().__init__(
            f'No manager was ever named for the thread "{thread_id}", so its messages are only '
            "kept; name one when appending the next."
        )


class AmbiguousThreadError(ConflictError):
    """The key sees threads with this id in several namespaces."""

    code = "thread_ambiguous"
    title = "Several threads with this id"

    def __init__(self, thread_id: str, namespaces: list[list[str]]) -> None:
        found = ", ".join(json.dumps(labels, ensure_ascii=False) for labels in namespaces[:5])
        super().__init__(
            f'There are threads "{thread_id}" in several namespaces that this key may see: '
            f"{found}. Send the namespace if the request has that field, or use a key with a grant "
            "for only one of them."
        )


@dataclass(frozen=True, slots=True)
class AppendCommand:
    """Messages for a thread, and a request's changes to its extraction schedule.

    `namespace` are labels. None means unchanged, for it as for `extraction` and the times.
    """

    thread_id: str
    messages: Sequence[MessageObject]
    namespace: list[str] | None = None
    extraction: ExtractCommand | None = None
    after_seconds: float | None = None
    max_wait_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class AppendPlan:
    """An append with its extraction planned.

    A run sends the conversation so far instead of only new messages, and gets a job even if none
    is new.
    """

    thread_id: str
    messages: Sequence[MessageObject]
    namespace: list[str] | None
    extraction: ExtractPlan | None
    after_seconds: float | None = None
    max_wait_seconds: float | None = None
    is_run: bool = False


@dataclass(frozen=True, slots=True)
class AppendResult:
    """Outcome of an append; `job_id` is None if no memories will be extracted."""

    thread_id: str
    appended: int
    already_known: int
    conflicting: list[str]
    pending: int
    job_id: str | None = None
    extracts_at: datetime | None = None


_RESULT: TypeAdapter[AppendResult] = TypeAdapter(AppendResult)


class ThreadService:
    """Threads on behalf of one caller."""

    def __init__(
        self, database: Database, jobs: JobService, planner: ExtractPlanner, clock: Clock
    ) -> None:
        self._database = database
        self._jobs = jobs
        self._planner = planner
        self._clock = clock

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make the service from a process's resources."""
        return cls(
            resources.database,
            JobService.build(resources),
            ExtractPlanner.build(resources),
            resources.clock,
        )

    async def append(
        self, access: Access, command: AppendCommand, idempotent: IdempotentRequest
    ) -> AppendResult:
        """Add messages, and schedule the extraction of memories from them."""
        if (known := await idempotent.find_answer(self._database)) is not None:
            return _RESULT.validate_python(known)
        planned = await self._plan(access, command)
        async with self._database.transaction(access.root) as connection:
            ref = await authorize_append(connection, access, planned)
            answer = await idempotent.claim(connection)
            if answer is not None:
                return _RESULT.validate_python(answer)
            result = await append(connection, access, self._jobs, ref, planned, self._clock.now())
            answer = _RESULT.dump_python(result, mode="json")
            await idempotent.remember(connection, answer)
        return result

    async def flush(self, access: Access, thread_id: str) -> str | None:
        """Start extracting memories now; return the job's id, None if no message is pending."""
        async with self._database.transaction(access.root) as connection:
            thread = await _lock(connection, access, thread_id)
            jobs = await _find_jobs(connection, thread.ref)
            if jobs:
                await jobs_repository.expedite(connection, jobs[0].id)
                return jobs[0].id
            if not thread.pending:
                return None
            if thread.schedule is None:
                raise ThreadWithoutManagerError(thread_id)
            check_rights(access, thread.namespace, thread.schedule)
            job = thread.schedule.job(thread.id, thread.namespace)
            return await self._jobs.create_or_move(connection, access, job)

    async def get(self, access: Access, thread_id: str) -> tuple[Thread, ActiveJob | None]:
        """Return a thread, and the queued job that will extract memories from it."""
        async with self._database.connection(access.root) as connection:
            thread = await _find(connection, access, thread_id)
            jobs = await _find_jobs(connection, thread.ref)
        return thread, next((job for job in jobs if job.state is State.QUEUED), None)

    async def get_readable(self, access: Access, thread_id: str) -> Thread:
        """Return a thread; raises ForbiddenError unless the caller may read its messages."""
        async with self._database.connection(access.root) as connection:
            return await _find_readable(connection, access, thread_id)

    async def list_messages(
        self,
        access: Access,
        thread_id: str,
        *,
        start: int,
        limit: int,
        memory_key: str | None = None,
    ) -> Page[Message]:
        """Return a page of a thread's messages in order, or of those that a memory rests on."""
        async with self._database.connection(access.root) as connection:
            ref = (await _find_readable(connection, access, thread_id)).ref
            if memory_key is None:
                return await repository.find_page(connection, ref, start, limit)
            return await repository.find_sources(connection, ref, memory_key, start, limit)

    async def list_memories(
        self, access: Access, thread_id: str, message_id: str, *, after: int, limit: int
    ) -> Page[Item]:
        """Return a page of the memories that rest on a message of a thread."""
        async with self._database.connection(access.root) as connection:
            ref = (await _find_readable(connection, access, thread_id)).ref
            now = self._clock.now()
            return await repository.find_memories(connection, ref, message_id, after, now, limit)

    async def delete(self, access: Access, thread_id: str) -> None:
        """Remove a thread and its messages, and cancel its jobs; its memories stay."""
        async with self._database.transaction(access.root) as connection:
            thread = await _lock(connection, access, thread_id)
            jobs = await _find_jobs(connection, thread.ref)
            for job in jobs:
                if job.state is State.QUEUED:
                    await jobs_repository.request_cancel(connection, job.id)
            await repository.delete(connection, thread.ref)
        # A job that ends has locked itself and waits for its thread: not in the same transaction.
        async with self._database.transaction(access.root) as connection:
            for job in jobs:
                if job.state is State.RUNNING:
                    await jobs_repository.request_cancel(connection, job.id)

    async def _plan(self, access: Access, command: AppendCommand) -> AppendPlan:
        if command.extraction is None:
            # Raises InvalidMessageError, with which a job would fail.
            to_turns(parse_messages(command.messages))
            namespace, plan = command.namespace, None
        else:
            plan = require_namespace(await self._planner.plan(access, command.extraction))
            namespace = plan.namespace
        return AppendPlan(
            thread_id=command.thread_id,
            messages=command.messages,
            namespace=namespace,
            extraction=plan,
            after_seconds=command.after_seconds,
            max_wait_seconds=command.max_wait_seconds,
        )


def sees_thread(access: Access, thread: Thread) -> bool:
    """Return whether a caller may see a thread: it has `jobs` or `read` on its namespace."""
    return _allows(access, thread, Verb.JOBS) or reads_conversation(access, thread)


def reads_conversation(access: Access, thread: Thread) -> bool:
    """Return whether a caller may read a thread's messages and summary."""
    return _allows(access, thread, Verb.READ)


async def find_visible(connection: Connection, access: Access, thread_id: str) -> list[Thread]:
    """Return the threads with this id that a caller may see."""
    threads = await repository.find_named(connection, access.root, thread_id)
    return [thread for thread in threads if sees_thread(access, thread)]


async def authorize_append(
    connection: Connection, access: Access, planned: AppendPlan
) -> ThreadRef:
    """Return the thread to append to, which may be new, after checking the caller's rights.

    Raises ForbiddenError, ThreadElsewhereError and AmbiguousThreadError.
    """
    labels = await _labels(connection, access, planned)
    ref = ThreadRef(access.root, planned.thread_id, access.authorize(labels, Verb.JOBS))
    thread = await repository.find(connection, ref)
    if thread is not None:
        check_rights(access, ref.namespace, _next_schedule(thread, planned))
    return ref


async def append(
    connection: Connection,
    access: Access,
    jobs: JobService,
    ref: ThreadRef,
    planned: AppendPlan,
    now: datetime,
) -> AppendResult:
    """Add messages in the caller's transaction, and submit or postpone the thread's job.

    Raises ForbiddenError and InvalidRequestError.
    """
    thread = await repository.get_or_create(connection, ref, now)
    schedule = _next_schedule(thread, planned)
    check_rights(access, ref.namespace, schedule)
    compared = await _deduplicate(connection, thread, planned)
    messages = _with_positions(compared.new, thread.next_position)
    await repository.append(connection, ref, messages, now)
    end = thread.next_position + len(messages)
    pending = end - thread.extracted_until
    since = (thread.pending_since or now) if schedule and pending else None
    await repository.set_schedule(connection, ref, end, since, schedule)
    job_id, extracts_at = None, None
    if schedule is not None:
        found = [] if messages else await _find_jobs(connection, ref)
        if found:
            job_id, extracts_at = found[0].id, found[0].run_at
        elif messages or pending or planned.is_run:
            delay = schedule.delay_seconds(since or now, now)
            job = schedule.job(ref.thread_id, ref.namespace, delay_seconds=delay)
            job_id = await jobs.create_or_move(connection, access, job)
            extracts_at = now + timedelta(seconds=delay)
    return AppendResult(
        thread_id=ref.thread_id,
        appended=len(messages),
        already_known=compared.already_known,
        conflicting=compared.conflicting,
        pending=pending,
        job_id=job_id,
        extracts_at=extracts_at,
    )


async def _labels(connection: Connection, access: Access, planned: AppendPlan) -> list[str]:
    """Return the namespace of the thread to append to, regardless of threads that are hidden."""
    threads = await find_visible(connection, access, planned.thread_id)
    namespaces = [access.relative(thread.namespace) for thread in threads]
    if planned.namespace is None:
        if len(namespaces) > 1:
            raise AmbiguousThreadError(planned.thread_id, namespaces)
        return namespaces[0] if namespaces else []
    if namespaces and planned.namespace not in namespaces:
        raise ThreadElsewhereError(planned.thread_id, planned.namespace)
    return planned.namespace


def _next_schedule(thread: Thread, planned: AppendPlan) -> ExtractionSchedule | None:
    """Return the schedule that a thread has after a planned."""
    after, max_wait = planned.after_seconds, planned.max_wait_seconds
    if planned.extraction is not None:
        return ExtractionSchedule.of(planned.extraction, after, max_wait)
    return thread.schedule and thread.schedule.with_times(after, max_wait)


async def _deduplicate(
    connection: Connection, thread: Thread, planned: AppendPlan
) -> Deduplication:
    repeated = await _count_repeated(connection, thread, planned.messages) if planned.is_run else 0
    rest = planned.messages[repeated:]
    ids = [message["id"] for message in rest if message.get("id") is not None]
    compared = deduplicate(rest, await repository.find_known(connection, thread.ref, ids))
    compared.already_known += repeated
    return compared


async def _count_repeated(
    connection: Connection, thread: Thread, sent: Sequence[MessageObject]
) -> int:
    end = thread.next_position
    first = await repository.find_messages(connection, thread.ref, 0, len(sent))
    last = await repository.find_messages(connection, thread.ref, end - len(sent), end)
    return count_repeated(
        [message.members for message in first], [message.members for message in last], sent
    )


def _with_positions(messages: Sequence[MessageObject], start: int) -> list[NewMessage]:
    """Return messages with their positions, and with ids if they have none."""
    return [_with_position(message, position) for position, message in enumerate(messages, start)]


def _with_position(message: MessageObject, position: int) -> NewMessage:
    message_id = message.get("id")
    if message_id is None:
        message_id = position_id(position)
    elif is_position_id(message_id):
        raise InvalidRequestError(
            f'messages has the id "{message_id}", as only memoryd gives them, but the thread '
            "does not; choose another id, or none.",
            field="messages",
        )
    members: JsonObject = {**message, "id": message_id}
    return NewMessage(position, message_id, members)


async def _find(connection: Connection, access: Access, thread_id: str) -> Thread:
    """Return the one thread with this id that a caller may see.

    Raises ThreadNotFoundError if none is visible, and AmbiguousThreadError if several are.
    """
    threads = await find_visible(connection, access, thread_id)
    if not threads:
        raise ThreadNotFoundError(thread_id)
    if len(threads) > 1:
        namespaces = [access.relative(thread.namespace) for thread in threads]
        raise AmbiguousThreadError(thread_id, namespaces)
    return threads[0]


async def _find_jobs(connection: Connection, ref: ThreadRef) -> list[ActiveJob]:
    """Return the extraction jobs of a thread: queued ones first, the next one first."""
    return await jobs_repository.find_active(connection, *ref, ThreadExtractPlan.job_kind)


async def _find_readable(connection: Connection, access: Access, thread_id: str) -> Thread:
    thread = await _find(connection, access, thread_id)
    access.authorize(access.relative(thread.namespace), Verb.READ)
    return thread


async def _lock(connection: Connection, access: Access, thread_id: str) -> Thread:
    """Return a thread that the caller may change, locked against appends."""
    found = await _find(connection, access, thread_id)
    access.authorize(access.relative(found.namespace), Verb.JOBS)
    thread = await repository.lock(connection, found.ref)
    if thread is None:
        raise ThreadNotFoundError(thread_id)
    return thread


def _allows(access: Access, thread: Thread, verb: Verb) -> bool:
    return access.allows(access.relative(thread.namespace), verb)
