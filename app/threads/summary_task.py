"""Jobs of the kind `summarize`: models write summaries and records of conversations."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

from typing_extensions import override

from app.conversations.dialogue import (
    AnswerTool,
    Ask,
    BadAnswerError,
    Dialogue,
    NoAnswerError,
    RefusalError,
    Repair,
    StructuredDialogue,
)
from app.conversations.division import Refusal, ask_in_parts, find_room
from app.conversations.messages import Turn
from app.conversations.portable_schema import portable_schema
from app.conversations.prompt_text import CONVERSATION_TAGS, Templates, render_turns
from app.conversations.schema_assertions import TooManyChecksError
from app.conversations.schema_validator import validator_of
from app.db.database import Database
from app.jobs.kind import JobConflictError, JobRun
from app.jobs.results import MAX_SUMMARY_CHARACTERS, SummaryState
from app.json_values import JsonObject, UnstorableError, check_storable, replace_unstorable
from app.providers.errors import RequestTooLongError
from app.providers.llm import Completion, LLMPool, Message, Request, Tool, ToolCall
from app.resources import Resources
from app.threads import repository
from app.threads.repository import Thread, ThreadRef
from app.threads.service import ThreadNotFoundError
from app.threads.summary_budget import (
    Budget,
    Entry,
    RunningSummary,
    ShorteningPlan,
    plan_shortening,
    split_turns,
    to_entries,
)
from app.threads.summary_plan import SummarizeRequest, running_summary, summary_state

RECORD = "record"
"""The tool with which models record a conversation."""

THREAD_SCHEMA: JsonObject = {
    "type": "object",
    "description": "Records a conversation in brief.",
    "properties": {
        "title": {
            "type": "string",
            "description": "What the conversation is about, in at most ten words.",
        },
        "summary": {
            "type": "string",
            "description": "What was wanted, said and decided, and what is left open, in one "
            "paragraph or a few.",
        },
    },
    "required": ["title", "summary"],
    "additionalProperties": False,
}
"""The default schema of a record."""

_TEMPLATES = Templates("app.threads")

_WORDS_PER_TOKEN = 0.75  # of English
_FEWEST_WORDS = 20

PART_CHARACTERS = 96_000
"""Maximum characters of a conversation in one request: about 24,000 tokens."""

EARLIER_TOKENS = 2_000
"""Length of the summary that replaces the first parts of a conversation to record."""

_FENCES = ("```", "```markdown", "```md", "```text")

_MAX_TOKENS = 8_192
MAX_RECORD_CHARACTERS = 262_144
_QUOTED = 300

_EMPTY = RunningSummary("", (), None)


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
            await run.finish(connection, _shortened_result(planned, running, body.budget))

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


def _shortened_result(
    planned: ShorteningPlan, running: RunningSummary | None, budget: Budget
) -> JsonObject:
    messages = planned.result(running)
    entries = [entry for entry in (planned.system, *planned.kept) if entry is not None]
    tokens = sum(entry.cost for entry in entries)
    return {
        "messages": messages,
        "running_summary": None if running is None else summary_state(running).model_dump(),
        "summarized": len(planned.replaced),
        "tokens": tokens + (budget.cost(running.message()) if running else 0),
    }


async def write_summary(
    ask: Ask, turns: Sequence[Turn], earlier: str | None, instructions: str | None, max_tokens: int
) -> str:
    """Return a summary of messages and of the earlier summary.

    `max_tokens` is the length that the model is asked for. Raises NoAnswerError, and the errors of
    `ask`.
    """
    system = _summary_system(instructions, max_tokens)
    limit = max(_MAX_TOKENS, 2 * max_tokens)
    summary = earlier

    async def extend(part: Sequence[Turn]) -> None:
        nonlocal summary
        message = Message("user", _summary_request(part, summary))
        request = Request(system, (message,), max_tokens=limit, divisible=True)
        summary = _summary_text(await ask(request, "summarize"))

    def divide(left: Sequence[Sequence[Turn]], error: Refusal) -> list[list[Turn]]:
        rest = [turn for part in left for turn in part]
        return split_turns(rest, _find_length(left[0], error))

    await ask_in_parts(split_turns(turns, PART_CHARACTERS), extend, divide)
    return summary or ""


def _find_length(turns: Sequence[Turn], error: Refusal) -> int:
    """Return the length of parts to send in place of refused messages; raises the error if none."""
    is_too_long = isinstance(error, RequestTooLongError)
    room = find_room(error, sum(len(turn.text) for turn in turns)) if is_too_long else 0
    if not room:
        raise error
    return room


async def write_record(
    ask: Ask, turns: Sequence[Turn], schema: JsonObject, instructions: str | None
) -> JsonObject:
    """Return a record of a conversation, an object that fits a schema.

    Raises NoAnswerError, and the errors of `ask`.
    """
    answer_tool = AnswerTool(_record_tool(schema), partial(_check_record, schema), _RecordRepair())
    record: JsonObject = {}

    async def record_end(parts: list[list[Turn]]) -> None:
        nonlocal record
        read = [turn for part in parts[:-1] for turn in part]
        earlier = None
        if read:
            earlier = await write_summary(ask, read, None, instructions, EARLIER_TOKENS)
        dialogue = Dialogue(ask, _record_system(instructions), divisible=True)
        dialogue.say(_record_request(parts[-1], earlier))
        record = await StructuredDialogue(dialogue, answer_tool, "record").answer()

    def shorten(left: Sequence[list[list[Turn]]], error: Refusal) -> list[list[list[Turn]]]:
        return [split_turns(turns, _find_length(left[0][-1], error))]

    await ask_in_parts([split_turns(turns, PART_CHARACTERS)], record_end, shorten)
    return record


class _RecordRepair(Repair):
    """Sends a record back once."""

    result = "Not recorded"

    @override
    def turn(self, tool: str, reply: Completion, error: BadAnswerError) -> str:
        return (
            f"Nothing has been recorded: {error}. Call `{tool}` once more, with everything that "
            "belongs in the record, corrected."
        )

    @override
    def describe_unreadable_call(self, call: ToolCall, reply: Completion) -> str | None:
        if call.arguments is not None and len(call.raw) > MAX_RECORD_CHARACTERS:
            return f"the record is longer than {MAX_RECORD_CHARACTERS:,} characters"
        return super().describe_unreadable_call(call, reply)


def _check_record(schema: JsonObject, record: JsonObject) -> JsonObject:
    """Return a record; raises BadAnswerError if it does not fit the schema."""
    try:
        check_storable(record, "$")
        faults = validator_of(schema).faults(record)
    except UnstorableError as error:
        raise BadAnswerError(str(error)) from error
    except TooManyChecksError as error:
        raise BadAnswerError(f"the record {error}") from error
    if faults:
        problems = (f"${fault.place}: {fault.message[:_QUOTED]}" for fault in faults)
        raise BadAnswerError("; ".join(problems))
    return record


def _summary_text(completion: Completion) -> str:
    if completion.finish_reason == "refusal":
        raise RefusalError(completion.text, [completion])
    text = _unfence(replace_unstorable(completion.text).strip())
    problem = None
    if completion.finish_reason == "length":
        problem = "its summary was cut off; it wrote too much"
    elif not text:
        problem = "the reply was empty"
    elif len(text) > MAX_SUMMARY_CHARACTERS:
        problem = (
            f"its summary has {len(text):,} characters; at most {MAX_SUMMARY_CHARACTERS:,} are kept"
        )
    if problem is not None:
        raise NoAnswerError(problem, [completion])
    return text


def _unfence(text: str) -> str:
    """Return a text without the fence around it, in which models write documents."""
    opening, _, rest = text.partition("\n")
    is_fenced = opening.strip() in _FENCES and rest.endswith("```") and rest.count("```") == 1
    return rest.removesuffix("```").strip() if is_fenced else text


def _summary_system(instructions: str | None, max_tokens: int) -> str:
    words = max(_FEWEST_WORDS, round(max_tokens * _WORDS_PER_TOKEN))
    return _with_instructions(_TEMPLATES.fill("summarize_text", words=str(words)), instructions)


def _record_system(instructions: str | None) -> str:
    return _with_instructions(_TEMPLATES.fill("summarize_record"), instructions)


def _summary_request(turns: Sequence[Turn], earlier: str | None) -> str:
    return _conversation_request("summarize_first", "summarize_next", turns, earlier)


def _record_request(turns: Sequence[Turn], earlier: str | None) -> str:
    return _conversation_request("summarize_record_first", "summarize_record_next", turns, earlier)


def _record_tool(schema: JsonObject) -> Tool:
    described = schema.get("description") or "Records what the conversation comes to."
    return Tool(RECORD, described, portable_schema(schema))


def _conversation_request(
    first: str, later: str, turns: Sequence[Turn], earlier: str | None
) -> str:
    conversation = render_turns(turns)
    if earlier is None:
        return _TEMPLATES.fill(first, conversation=conversation)
    return _TEMPLATES.fill(
        later, summary=CONVERSATION_TAGS.escape(earlier), conversation=conversation
    )


def _with_instructions(text: str, instructions: str | None) -> str:
    if instructions is None or not instructions.strip():
        return text
    guidance = _TEMPLATES.fill(
        "summarize_instructions", instructions=CONVERSATION_TAGS.escape(instructions.strip())
    )
    return f"{text}\n\n{guidance}"
