"""Summaries and records of conversations, written by models."""

from collections.abc import Sequence
from functools import partial

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
from app.conversations.messages import Turn
from app.conversations.prompt_text import CONVERSATION_TAGS, Templates, render_turns
from app.conversations.schema_assertions import TooManyChecksError
from app.conversations.schema_validator import validator_of
from app.jobs.kind import JobFailedError
from app.jobs.results import MAX_SUMMARY_CHARACTERS
from app.json_values import JsonObject, UnstorableError, check_storable, replace_unstorable
from app.providers.llm import Completion, Message, Request, Tool, ToolCall
from app.threads.summaries.shorten import split_turns

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

_MAX_TOKENS = 8_192
MAX_RECORD_CHARACTERS = 262_144
_QUOTED = 300


async def write_summary(
    ask: Ask, turns: Sequence[Turn], earlier: str | None, instructions: str | None, max_tokens: int
) -> str:
    """Return a summary of messages and of the earlier summary.

    `max_tokens` is the length that the model is asked for. Raises JobFailedError, and the errors of
    `ask`.
    """
    system = _summary_system(instructions, max_tokens)
    limit = max(_MAX_TOKENS, 2 * max_tokens)
    summary = earlier
    for part in split_turns(turns, PART_CHARACTERS):
        message = Message("user", _summary_request(part, summary))
        completion = await ask(Request(system, (message,), max_tokens=limit), "summarize")
        summary = _text(completion)
    return summary or ""


async def write_record(
    ask: Ask, turns: Sequence[Turn], schema: JsonObject, instructions: str | None
) -> JsonObject:
    """Return a record of a conversation, an object that fits a schema.

    Raises JobFailedError, and the errors of `ask`.
    """
    *before, last = split_turns(turns, PART_CHARACTERS)
    read = [turn for part in before for turn in part]
    earlier = await write_summary(ask, read, None, instructions, EARLIER_TOKENS) if before else None
    dialogue = Dialogue(ask, _record_system(instructions))
    dialogue.say(_record_request(last, earlier))
    answer_tool = AnswerTool(_record_tool(schema), partial(_check_record, schema), _RecordRepair())
    try:
        return await StructuredDialogue(dialogue, answer_tool, "record").answer()
    except RefusalError as error:
        raise _refused(str(error)) from error
    except NoAnswerError as error:
        problem = f"The model's record is not usable: {error}."
        raise JobFailedError("invalid_output", problem) from error


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


def _text(completion: Completion) -> str:
    if completion.finish_reason == "refusal":
        raise _refused(completion.text)
    if completion.finish_reason == "length":
        raise JobFailedError("truncated", "The model's summary was cut off; it wrote too much.")
    text = replace_unstorable(completion.text).strip()
    if not text:
        raise JobFailedError("invalid_output", "The model answered without a summary.")
    if len(text) > MAX_SUMMARY_CHARACTERS:
        raise JobFailedError(
            "invalid_output",
            f"The model's summary has {len(text):,} characters; at most "
            f"{MAX_SUMMARY_CHARACTERS:,} are kept.",
        )
    return text


def _refused(text: str) -> JobFailedError:
    quoted = text.strip()[:_QUOTED]
    return JobFailedError("refused", f"The model refused{': ' + quoted if quoted else ''}.")


def _summary_system(instructions: str | None, max_tokens: int) -> str:
    words = max(_FEWEST_WORDS, round(max_tokens * _WORDS_PER_TOKEN))
    return _with_instructions(_TEMPLATES.fill("summarize_text", words=str(words)), instructions)


def _record_system(instructions: str | None) -> str:
    return _with_instructions(_TEMPLATES.fill("summarize_record"), instructions)


def _summary_request(turns: Sequence[Turn], earlier: str | None) -> str:
    return _conversation("summarize_first", "summarize_next", turns, earlier)


def _record_request(turns: Sequence[Turn], earlier: str | None) -> str:
    return _conversation("summarize_record_first", "summarize_record_next", turns, earlier)


def _record_tool(schema: JsonObject) -> Tool:
    described = schema.get("description") or "Records what the conversation comes to."
    return Tool(RECORD, described, schema)


def _conversation(first: str, later: str, turns: Sequence[Turn], earlier: str | None) -> str:
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
