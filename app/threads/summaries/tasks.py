"""The job that sums a conversation up."""

from dataclasses import dataclass
from typing import Any, Self

from app.auth.access import Access, Verb
from app.db.database import Database, Row
from app.jobs.job import NewJob
from app.jobs.results import SummaryState
from app.jobs.run import JobConflictError, JobRun
from app.providers.llm.pool import LLMPool
from app.resources import Resources
from app.threads import repository
from app.threads.errors import ThreadNotFoundError
from app.threads.service import ThreadService
from app.threads.summaries.messages import Entry, read
from app.threads.summaries.prompts import THREAD_SCHEMA
from app.threads.summaries.repository import find_uncovered, keep_summary
from app.threads.summaries.schemas import SummarizeRequest, running_summary, summary_state
from app.threads.summaries.shortening import Budget, Plan, RunningSummary, plan
from app.threads.summaries.writing import record_of, summary_of

_EMPTY = RunningSummary("", (), None)


async def summarizing_job(resources: Resources, access: Access, body: SummarizeRequest) -> NewJob:
    """Return the job that a request asks for.

    Raises ForbiddenError, ThreadNotFoundError, InvalidMessageError, InvalidRequestError, and
    LLMNotConfiguredError where it is certain that a model is needed.
    """
    namespace = access.root
    if body.thread_id is None:
        access.locate([], Verb.JOBS)
        entries, running = body.conversation()
        needs_model = not body.is_running or bool(plan(entries, running, body.budget).gone)
    else:
        thread = await ThreadService.build(resources).readable(access, body.thread_id)
        namespace = thread["namespace"]
        access.locate(access.relative(namespace), Verb.JOBS)
        needs_model = not body.is_running
    resources.llms.check(body.model)
    if needs_model:
        resources.llms.get(body.model)
    return body.new_job(namespace, thread_id=body.thread_id)


@dataclass(frozen=True, slots=True)
class _Conversation:
    """What a job is about; `thread` is the row of the thread that it was read from."""

    entries: list[Entry]
    running: RunningSummary | None = None
    thread: Row | None = None


class SummarizeHandler:
    """Does the jobs of the kind `summarize`."""

    def __init__(self, database: Database, llms: LLMPool) -> None:
        self._database = database
        self._llms = llms

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make the handler from a process's resources."""
        return cls(resources.database, resources.llms)

    async def run(self, run: JobRun, body: SummarizeRequest) -> None:
        """Sum a conversation up, and keep the summary where it is a thread's."""
        if body.is_running:
            await self._shorten(run, body)
        else:
            await self._record(run, body)

    async def _shorten(self, run: JobRun, body: SummarizeRequest) -> None:
        conversation = await self._read(run, body)
        found = plan(conversation.entries, conversation.running, body.budget)
        running = conversation.running
        if found.gone:
            running = await self._extended(run, body, running, found)
        async with self._database.transaction(run.job.access.root) as connection:
            if found.gone and running and conversation.thread:
                summary = summary_state(running).model_dump_json()
                if not await keep_summary(connection, conversation.thread, summary):
                    raise JobConflictError("The thread's summary was changed meanwhile.")
            await run.finish(connection, _result(found, running, body.budget))

    async def _record(self, run: JobRun, body: SummarizeRequest) -> None:
        conversation = await self._read(run, body)
        content = await record_of(
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
        ref = (run.job.access.root, body.thread_id, run.job.namespace)
        async with self._database.connection(ref[0]) as connection:
            thread = await repository.find(connection, ref)
            if thread is None:
                raise ThreadNotFoundError(body.thread_id)
            stored = thread["summary"] if body.is_running else None
            running = stored and running_summary(SummaryState.model_validate_json(stored))
            covered = running.message_ids if running else ()
            messages = await find_uncovered(connection, ref, covered)
        return _Conversation(read(messages, body.budget.counter), running, thread)

    async def _extended(
        self, run: JobRun, body: SummarizeRequest, running: RunningSummary | None, found: Plan
    ) -> RunningSummary:
        text = await summary_of(
            run.asking(self._llms.get(body.model)),
            [entry.turn for entry in found.read],
            running.text if running else None,
            body.instructions,
            body.told_tokens,
        )
        return (running or _EMPTY).extended(text, found.gone)


def _result(found: Plan, running: RunningSummary | None, budget: Budget) -> dict[str, Any]:
    messages = found.result(running)
    entries = [entry for entry in (found.system, *found.kept) if entry is not None]
    tokens = sum(entry.cost for entry in entries)
    return {
        "messages": messages,
        "running_summary": None if running is None else summary_state(running).model_dump(),
        "summarized": len(found.gone),
        "tokens": tokens + (budget.cost(running.message()) if running else 0),
    }
