"""When and how memories are extracted from a thread."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Self

from pydantic import BaseModel

from app.auth.access import Access, Verb
from app.conversations.messages import parse_messages
from app.errors import InvalidRequestError
from app.extraction.plan import ExtractPlan
from app.jobs.kind import JobPlan
from app.jobs.record import NewJob
from app.json_values import JsonObject
from app.namespaces import StoredNamespace

AFTER_SECONDS = 30.0
MAX_WAIT_SECONDS = 600.0
MAX_WAIT_RATIO = 20
"""Default of `max_wait_seconds` as a multiple of a long `after_seconds`."""


class ThreadExtractPlan(JobPlan):
    """The thread of a job of the kind `extract_thread`, which reads the rest when it starts."""

    job_kind = "extract_thread"

    thread_id: str


class ExtractionSchedule(BaseModel):
    """The latest choice of a thread's clients, stored with it; jobs add messages to the plan."""

    plan: ExtractPlan
    after_seconds: float
    max_wait_seconds: float

    @classmethod
    def of(cls, plan: ExtractPlan, after: float | None, max_wait: float | None) -> Self:
        """Return the schedule of a request, with defaults for times that it omits."""
        after = AFTER_SECONDS if after is None else after
        if max_wait is None:
            max_wait = max(MAX_WAIT_SECONDS, MAX_WAIT_RATIO * after)
        return cls(
            plan=plan.model_copy(update={"messages": []}),
            after_seconds=after,
            max_wait_seconds=max_wait,
        )

    def with_times(self, after: float | None, max_wait: float | None) -> Self:
        """Return the schedule with the times that a request sets; None leaves a time as it is."""
        times = {"after_seconds": after, "max_wait_seconds": max_wait}
        update = {name: seconds for name, seconds in times.items() if seconds is not None}
        return self.model_copy(update=update)

    @property
    def verbs(self) -> tuple[Verb, ...]:
        """Verbs that the job needs on the memories' namespace, besides `jobs`."""
        config = self.plan.config
        deletes = config.may_delete and config.strategy == "llm"
        return (Verb.READ, Verb.WRITE, *((Verb.DELETE,) if deletes else ()))

    def delay_seconds(self, pending_since: datetime, now: datetime) -> float:
        """Return how long a job waits for further messages after one that arrives now."""
        deadline = pending_since + timedelta(seconds=self.max_wait_seconds)
        return max(0.0, min(self.after_seconds, (deadline - now).total_seconds()))

    def plan_for(
        self, messages: Sequence[JsonObject], *, position: int, context_messages: int
    ) -> ExtractPlan:
        """Return the plan for some of the thread's messages, the first of them at `position`."""
        return self.plan.model_copy(
            update={
                "messages": parse_messages(messages),
                "position": position,
                "context_messages": context_messages,
            }
        )

    def job(
        self, thread_id: str, namespace: StoredNamespace, *, delay_seconds: float = 0.0
    ) -> NewJob:
        """Return the job that extracts memories; it reads the thread's messages when it starts."""
        return ThreadExtractPlan(thread_id=thread_id).new_job(
            namespace,
            concurrency_key=namespace,
            dedupe_key=thread_id,
            manager=self.plan.manager,
            thread_id=thread_id,
            delay_seconds=delay_seconds,
        )


def check_rights(
    access: Access, namespace: StoredNamespace, schedule: ExtractionSchedule | None
) -> None:
    """Raise ForbiddenError unless the caller may do everything that the thread's job does."""
    for verb in (Verb.JOBS, *(schedule.verbs if schedule else ())):
        access.authorize(access.relative(namespace), verb)


def require_namespace(plan: ExtractPlan) -> ExtractPlan:
    """Return the plan; raises InvalidRequestError if it has no namespace for memories."""
    if plan.namespace is None:
        raise InvalidRequestError(
            "The manager has no namespace, so the thread's memories would go nowhere; "
            "send namespace, or give the manager one.",
            field="namespace",
        )
    return plan
