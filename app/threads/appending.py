"""Adding messages to a thread, and seeing to it that memories are formed of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from app.auth.access import Access, Verb
from app.db.database import Connection, Row
from app.errors import InvalidRequestError
from app.jobs.job import NewJob
from app.jobs.service import JobService
from app.managers.plans import ExtractPlan
from app.threads import repository
from app.threads.errors import AmbiguousThreadError, ThreadElsewhereError
from app.threads.formation import Formation, ThreadExtractPlan
from app.threads.recognizing import (
    Message,
    Recognized,
    derived_id,
    is_derived,
    recognize,
    repeated,
)
from app.threads.repository import NewMessage, Ref
from app.threads.visibility import find_visible


@dataclass(frozen=True, slots=True)
class Arrival:
    """Messages for a thread, and what was said about forming memories of it.

    `namespace` are labels; None, like `plan` and the times: as before. A run brings the
    conversation so far instead of what is new in it, and has a job even if nothing is.
    """

    thread_id: str
    messages: Sequence[dict[str, Any]]
    namespace: list[str] | None = None
    plan: ExtractPlan | None = None
    after_seconds: float | None = None
    max_wait_seconds: float | None = None
    is_run: bool = False


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of messages; `job_id` is None where no memories are formed of them."""

    recognized: Recognized
    waiting: int
    job_id: str | None = None
    forms_at: datetime | None = None


async def admit(connection: Connection, access: Access, arrival: Arrival) -> Ref:
    """Return the thread to append to, which may be new, after checking the caller's rights.

    Raises ForbiddenError, ThreadElsewhereError and AmbiguousThreadError.
    """
    labels = await _labels(connection, access, arrival)
    ref = (access.root, arrival.thread_id, access.locate(labels, Verb.JOBS))
    thread = await repository.find(connection, ref)
    if thread is not None:
        check_rights(access, thread, _formation(thread, arrival))
    return ref


async def append(
    connection: Connection,
    access: Access,
    jobs: JobService,
    ref: Ref,
    arrival: Arrival,
    now: datetime,
) -> Appended:
    """Add messages in the caller's transaction, and submit the thread's job or put it off.

    Raises ForbiddenError and InvalidRequestError.
    """
    thread = await repository.hold(connection, ref, now)
    formation = _formation(thread, arrival)
    check_rights(access, thread, formation)
    found = await _recognized(connection, thread, arrival)
    messages = _placed(found.new, thread["next_position"])
    await repository.append(connection, thread, messages, now)
    end = thread["next_position"] + len(messages)
    waiting = end - thread["learned_until"]
    since = (thread["waiting_since"] or now) if formation and waiting else None
    await repository.set_formation(
        connection, ref, end, since, formation.model_dump_json() if formation else None
    )
    if formation is None:
        return Appended(found, waiting)
    if not messages:
        begun = await repository.find_jobs(connection, ref)
        if begun:
            return Appended(found, waiting, begun[0]["id"], begun[0]["run_at"])
        if not waiting and not arrival.is_run:
            return Appended(found, waiting)
    delay = formation.delay_seconds(since or now, now)
    job_id = await jobs.create_or_move(
        connection, access, job_of(thread, formation, delay_seconds=delay)
    )
    return Appended(found, waiting, job_id, now + timedelta(seconds=delay))


def with_place(plan: ExtractPlan) -> ExtractPlan:
    """Return the plan; InvalidRequestError where it does not say where memories go."""
    if plan.namespace is None:
        raise InvalidRequestError(
            "The manager has no namespace, so the thread's memories would go nowhere; "
            "send namespace, or give the manager one.",
            field="namespace",
        )
    return plan


def job_of(thread: Row, formation: Formation, *, delay_seconds: float = 0.0) -> NewJob:
    """Return the job that forms memories of a thread; it reads the rest when it begins."""
    return ThreadExtractPlan(thread_id=thread["id"]).new_job(
        thread["namespace"],
        concurrency_key=thread["namespace"],
        dedupe_key=thread["id"],
        manager=formation.plan.manager,
        thread_id=thread["id"],
        delay_seconds=delay_seconds,
    )


async def _labels(connection: Connection, access: Access, arrival: Arrival) -> list[str]:
    """Return the namespace of the thread to append to.

    Threads that the caller may not see are ignored, as if they did not exist.
    """
    threads = await find_visible(connection, access, arrival.thread_id)
    places = [access.relative(thread["namespace"]) for thread in threads]
    if arrival.namespace is None:
        if len(places) > 1:
            raise AmbiguousThreadError(arrival.thread_id, places)
        return places[0] if places else []
    if places and arrival.namespace not in places:
        raise ThreadElsewhereError(arrival.thread_id, arrival.namespace)
    return arrival.namespace


def check_rights(access: Access, thread: Row, formation: Formation | None) -> None:
    """Raise ForbiddenError unless the caller may do what the thread's job will do."""
    for verb in (Verb.JOBS, *(formation.verbs if formation else ())):
        access.locate(access.relative(thread["namespace"]), verb)


def _formation(thread: Row, arrival: Arrival) -> Formation | None:
    """Return how memories are formed from now on."""
    after, max_wait = arrival.after_seconds, arrival.max_wait_seconds
    if arrival.plan is not None:
        return Formation.of(arrival.plan, after, max_wait)
    if thread["formation"] is None:
        return None
    return Formation.model_validate_json(thread["formation"]).timed(after, max_wait)


async def _recognized(connection: Connection, thread: Row, arrival: Arrival) -> Recognized:
    """Tell which messages are new."""
    ref = repository.ref_of(thread)
    again = await _repeated(connection, thread, arrival.messages) if arrival.is_run else 0
    rest = arrival.messages[again:]
    ids = [message["id"] for message in rest if message.get("id") is not None]
    found = recognize(rest, await repository.find_known(connection, ref, ids))
    found.already_known += again
    return found


async def _repeated(connection: Connection, thread: Row, sent: Sequence[Message]) -> int:
    ref, end = repository.ref_of(thread), thread["next_position"]
    first = await repository.find_messages(connection, ref, 0, len(sent))
    last = await repository.find_messages(connection, ref, end - len(sent), end)
    return repeated(
        [repository.message_of(row) for row in first],
        [repository.message_of(row) for row in last],
        sent,
    )


def _placed(messages: Sequence[Message], start: int) -> list[NewMessage]:
    """Give messages their positions, and ids to those that have none."""
    placed = []
    for position, message in enumerate(messages, start):
        message_id = message.get("id")
        if message_id is None:
            message_id = derived_id(position)
        elif is_derived(message_id):
            raise InvalidRequestError(
                f'messages has the id "{message_id}", as only memoryd gives them, but the thread '
                "does not; choose another id, or none.",
                field="messages",
            )
        placed.append(NewMessage(position, message_id, {**message, "id": message_id}))
    return placed
