"""What models make of conversations: a summary in words, or a record that fits a schema."""

from collections.abc import Sequence
from typing import Any

from app.conversations.dialogue import Dialogue
from app.conversations.json_schema.budget import TooManyChecksError
from app.conversations.json_schema.subset import validator_of
from app.conversations.types import Ask, Turn
from app.jobs.results import MAX_SUMMARY_CHARACTERS
from app.jobs.run import JobFailedError
from app.json_values import UnstorableError, check_storable, replace_unstorable
from app.providers.llm.base import Completion, Message, Request, ToolCall, ToolResult
from app.threads.summaries.prompts import (
    RECORD,
    record_request,
    record_system,
    record_tool,
    summary_request,
    summary_system,
)
from app.threads.summaries.shortening import parts

PART_CHARACTERS = 96_000
"""Of a conversation in one request: some 24,000 tokens. A longer one is read part by part."""

EARLIER_TOKENS = 2_000
"""Of the summary of what is too long to be recorded at once."""

_MAX_TOKENS = 8_192
MAX_RECORD_CHARACTERS = 262_144
_QUOTED = 300


async def summary_of(
    ask: Ask, turns: Sequence[Turn], earlier: str | None, instructions: str | None, max_tokens: int
) -> str:
    """Return a summary of messages and of what was summed up before them.

    `max_tokens` is what the model is asked to keep to. Raises JobFailedError and what `ask` raises.
    """
    system = summary_system(instructions, max_tokens)
    limit = max(_MAX_TOKENS, 2 * max_tokens)
    summary = earlier
    for part in parts(turns, PART_CHARACTERS):
        message = Message("user", summary_request(part, summary))
        completion = await ask(Request(system, (message,), max_tokens=limit), "summarize")
        summary = _text(completion)
    return summary or ""


async def record_of(
    ask: Ask, turns: Sequence[Turn], schema: dict[str, Any], instructions: str | None
) -> dict[str, Any]:
    """Return what a conversation comes to, as an object that fits a schema.

    Raises JobFailedError and what `ask` raises.
    """
    *before, last = parts(turns, PART_CHARACTERS)
    read = [turn for part in before for turn in part]
    earlier = await summary_of(ask, read, None, instructions, EARLIER_TOKENS) if before else None
    dialogue = Dialogue(ask, record_system(instructions))
    dialogue.say(record_request(last, earlier))
    problem = ""
    for purpose in ("record", "repair"):
        completion = await dialogue.answer(purpose, [record_tool(schema)])
        _check_not_refused(completion)
        call = next((call for call in completion.calls if call.name == RECORD), None)
        problem = _problem(call, schema)
        if call is not None and call.arguments is not None and not problem:
            return call.arguments
        dialogue.say(*_sent_back(completion, problem))
    raise JobFailedError("invalid_output", f"The model's record is not usable: {problem}.")


def _text(completion: Completion) -> str:
    _check_not_refused(completion)
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


def _check_not_refused(completion: Completion) -> None:
    if completion.finish_reason == "refusal":
        said = completion.text.strip()[:_QUOTED]
        raise JobFailedError("refused", f"The model refused{': ' + said if said else ''}.")


def _problem(call: ToolCall | None, schema: dict[str, Any]) -> str:
    """Return what is wrong with the record in a model's call; nothing if it can be taken."""
    if call is None:
        return f"the tool `{RECORD}` was not called"
    if call.arguments is None:
        return "the arguments are not a JSON object; they may have been cut off"
    if len(call.raw) > MAX_RECORD_CHARACTERS:
        return f"the record is longer than {MAX_RECORD_CHARACTERS:,} characters"
    try:
        check_storable(call.arguments, "$")
        faults = validator_of(schema).faults(call.arguments)
    except UnstorableError as error:
        return str(error)
    except TooManyChecksError as error:
        return f"the record {error}"
    return "; ".join(f"${fault.place}: {fault.message[:_QUOTED]}" for fault in faults)


def _sent_back(completion: Completion, problem: str) -> tuple[str, list[ToolResult]]:
    """Return our turn after an answer that cannot be used."""
    results = [ToolResult(call.id, f"Not recorded: {problem}.", True) for call in completion.calls]
    return (
        f"Nothing has been recorded: {problem}. Call `{RECORD}` once more, with everything that "
        "belongs in the record, corrected.",
        results,
    )
