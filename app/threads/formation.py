"""How and when memories are formed of a thread."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Self

from pydantic import BaseModel

from app.auth.access import Verb
from app.jobs.kind import JobPlan
from app.managers.plans import ExtractPlan

AFTER_SECONDS = 30.0
MAX_WAIT_SECONDS = 600.0
MAX_WAIT_RATIO = 20
"""How many times the quiet asked for a message waits at most where no limit is named."""


class ThreadExtractPlan(JobPlan):
    """What a job of the kind `extract_thread` extracts memories from; it reads the rest itself."""

    job_kind = "extract_thread"

    thread_id: str


class Formation(BaseModel):
    """What was last asked for, kept with the thread; the plan's messages are added by the job."""

    plan: ExtractPlan
    after_seconds: float
    max_wait_seconds: float

    @classmethod
    def of(cls, plan: ExtractPlan, after: float | None, max_wait: float | None) -> Self:
        """Fill in what a request left open."""
        after = AFTER_SECONDS if after is None else after
        if max_wait is None:
            max_wait = max(MAX_WAIT_SECONDS, MAX_WAIT_RATIO * after)
        return cls(
            plan=plan.model_copy(update={"messages": []}),
            after_seconds=after,
            max_wait_seconds=max_wait,
        )

    def timed(self, after: float | None, max_wait: float | None) -> Self:
        """Return the formation with other times, where a request names some."""
        named = {"after_seconds": after, "max_wait_seconds": max_wait}
        update = {name: seconds for name, seconds in named.items() if seconds is not None}
        return self.model_copy(update=update)

    @property
    def verbs(self) -> tuple[Verb, ...]:
        """What the job does where the memories are, beside being one."""
        config = self.plan.config
        deletes = config.may_delete and config.strategy == "llm"
        return (Verb.READ, Verb.WRITE, *((Verb.DELETE,) if deletes else ()))

    def delay_seconds(self, waiting_since: datetime, now: datetime) -> float:
        """Return how long to wait for further messages when one has just come."""
        deadline = waiting_since + timedelta(seconds=self.max_wait_seconds)
        return max(0.0, min(self.after_seconds, (deadline - now).total_seconds()))

    def plan_for(
        self, messages: Sequence[dict[str, Any]], *, position: int, learn_from: int
    ) -> ExtractPlan:
        """Return what to do with some of the thread's messages, the first at `position`."""
        return self.plan.model_copy(
            update={"messages": messages, "position": position, "learn_from": learn_from}
        )
