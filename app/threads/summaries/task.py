"""Jobs of the kind `summarize`."""

from dataclasses import dataclass
from typing import Self

from app.auth.access import Access, Verb
from app.db.database import Database
from app.jobs.kind import JobConflictError, JobRun
from app.jobs.record import NewJob
from app.jobs.results import SummaryState
from app.json_values import JsonObject
from app.namespaces import StoredNamespace
from app.providers.llm import LLMPool
from app.resources import Resources
from app.threads import repository
from app.threads.errors import ThreadNotFoundError
from app.threads.repository import Thread, ThreadRef
from app.threads.service import ThreadService
from app.threads.summaries.schemas import SummarizeRequest, running_summary, summary_state
from app.threads.summaries.shorten import (
    Budget,
    Entry,
    RunningSummary,
    ShorteningPlan,
    plan_shortening,
    to_entries,
)
from app.threads.summaries.write import THREAD_SCHEMA, write_record, write_summary

_EMPTY = RunningSummary("", (), None)


async def plan_summarize(resources: Resources, access: Access, body: SummarizeRequest) -> NewJob:
    """Return the job for a request.

    Raises ForbiddenError, ThreadNotFoundError, InvalidMessageError, InvalidRequestError, and
    LLMNotConfiguredError if the job is certain to need a model.
    """
    namespace: StoredNamespace = access.root
    if body.thread_id is None:
        access.authorize([], Verb.JOBS)
        entries, running = body.conversation()
        needs_model = not body.is_running or bool(
            plan_shortening(entries, running, body.budget).replaced
        )
    else:
        thread = await ThreadService.build(resources).get_readable(access, body.thread_id)
        namespace = thread.namespace
        access.authorize(access.relative(namespace), Verb.JOBS)
        needs_model = not body.is_running
    resources.llms.check(body.model)
    if needs_model:
        resources.llms.get(body.model)
    return body.new_job(namespace, thread_id=body.thread_id)


@dataclass(frozen=True, slots=True)
class _Conversation:
    """The conversation of a job, and the thread that it was read from, if any."""

    entries: list[Entry]
    running: RunningSummary | None = None
    thread: Thread | None = None


class SummarizeHandler:
    """Runs the jobs of the kind `summarize`."""

    def __init__(self, database: Database, llms: LLMPool) -> None:
        self._database = database
        self._llms = llms

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make the handler from a process's resources."""
        return cls(resources.database, resources.llms)

    async def run(self, run: JobRun, body: SummarizeRequest) -> None:
        """Summarize or record a conversation; a thread keeps its running summary."""
        if body.is_running:
            await self._shorten(run, body)
        else:
            await self._record(run, body)

    async def _shorten(self, run: JobRun, body: SummarizeRequest) -> None:
        conversation = await self._read(run, body)
        planned = plan_shortening(conversation.entries, conversation.running, body.budget)
        running = conversation.running
        if planned.replaced:
            running = await self._extended(run, body, running, planned)
        async with self._database.transaction(run.job.access.root) as connection:
            if planned.replaced and running and conversation.thread:
                summary = summary_state(running).model_dump_json()
                if not await repository.set_summary(connection, conversation.thread, summary):
                    raise JobConflictError("The thread's summary has changed.")
            await run.finish(connection, _result(planned, running, body.budget))

    async def _record(self, run: JobRun, body: SummarizeRequest) -> None:
        conversation = await self._read(run, body)
        content = await write_record(
            run.asking(self._llms.get(body.model)),
            [entry.turn for entry in conversation.entries],
            body.json_schema or THREAD_SCHEMA,
            body.instructions,
        )
        async with self._database.transaction(run.job.access.root) as connection:
            await run.finish(connection, {"content": content})

    async def _read(self, run: JobRun, body: SummarizeRequest) -> _Conversation:
        if body.thread_id is None:
            return _Conversation(*body.conversation())
        ref = ThreadRef(run.job.access.root, body.thread_id, run.job.namespace)
        async with self._database.connection(ref.root) as connection:
            thread = await repository.find(connection, ref)
            if thread is None:
                raise ThreadNotFoundError(body.thread_id)
            stored = thread.summary if body.is_running else None
            state = SummaryState.model_validate_json(stored) if stored else None
            running = running_summary(state) if state else None
            covered = running.message_ids if running else ()
            messages = await repository.find_unsummarized(connection, ref, covered)
        return _Conversation(to_entries(messages, body.budget.counter), running, thread)

    async def _extended(
        self,
        run: JobRun,
        body: SummarizeRequest,
        running: RunningSummary | None,
        planned: ShorteningPlan,
    ) -> RunningSummary:
        text = await write_summary(
            run.asking(self._llms.get(body.model)),
            [entry.turn for entry in planned.read],
            running.text if running else None,
            body.instructions,
            body.requested_tokens,
        )
        return (running or _EMPTY).extended(text, planned.replaced)


def _result(planned: ShorteningPlan, running: RunningSummary | None, budget: Budget) -> JsonObject:
    messages = planned.result(running)
    entries = [entry for entry in (planned.system, *planned.kept) if entry is not None]
    tokens = sum(entry.cost for entry in entries)
    return {
        "messages": messages,
        "running_summary": None if running is None else summary_state(running).model_dump(),
        "summarized": len(planned.replaced),
        "tokens": tokens + (budget.cost(running.message()) if running else 0),
    }
