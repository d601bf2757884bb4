"""Conversations and memories as models are shown them, between delimiters no text can forge."""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from app.conversations.types import LLMTask, Memory, Turn

MAX_SHOWN = 96_000
"""Characters of one message, which is as much as a thread's job learns from at once."""

# Every tag that the templates give a meaning to.
_TAG = re.compile(
    r"<(?=[\s/]*(?:conversation|earlier|instructions|memor(?:y|ies)|message)\b)", re.IGNORECASE
)


def escaped(text: str) -> str:
    """Return the text with `&lt;` where it has one of our tags; all other markup stays as it is."""
    return _TAG.sub("&lt;", text)


def shown_day(moment: datetime | None) -> str:
    """Return the date in UTC with its weekday, which relative dates are reckoned by."""
    return "an unknown date" if moment is None else f"{moment.astimezone(UTC):%A, %Y-%m-%d}"


def shown_text(turn: Turn) -> str:
    """Return what a message says; of a very long one, its beginning and its end."""
    rest = len(turn.text) - MAX_SHOWN
    if rest <= 0:
        return turn.text
    half = MAX_SHOWN // 2
    return f"{turn.text[:half]}\n[… {rest:,} characters left out …]\n{turn.text[-half:]}"


def shown_turns(task: LLMTask) -> str:
    """Return the task's messages: those that are context only, then those to learn from."""
    shown = [_message(number, turn) for number, turn in enumerate(task.turns, start=1)]
    earlier, latest = shown[: task.context_turns], shown[task.context_turns :]
    blocks = [_block("earlier", earlier)] if earlier else []
    return "\n\n".join([*blocks, _block("conversation", latest)])


def shown_memories(memories: Collection[Memory], *, none: str = "No memories are kept yet.") -> str:
    """Return the memories under their short ids, with their content as JSON."""
    if not memories:
        return none
    return _block("memories", [_memory(memory) for memory in memories])


def message_ids(shown: Sequence[object], turns: Sequence[Turn]) -> tuple[str, ...]:
    """Return the own ids of the messages with the ids that models see; unknown ones are left out.

    Models see messages numbered from 1: such ids are short, unique, and nobody can forge them.
    """
    known = {str(number): turn.id for number, turn in enumerate(turns, start=1)}
    return tuple(dict.fromkeys(known[str(id_)] for id_ in shown if str(id_) in known))


def _block(tag: str, lines: Sequence[str]) -> str:
    return "\n".join([f"<{tag}>", *lines, f"</{tag}>"])


def _message(number: int, turn: Turn) -> str:
    attributes = {
        "id": str(number),
        "from": turn.speaker,
        "role": turn.role if turn.role != turn.speaker else None,
        "time": _weekday_and_time(turn.said_at),
    }
    return f"<message{_attributes(attributes)}>\n{escaped(shown_text(turn))}\n</message>"


def _memory(memory: Memory) -> str:
    attributes = {
        "id": memory.id,
        "kind": memory.kind,
        "importance": None if memory.importance is None else f"{memory.importance:g}",
        "since": _time(memory.valid_from),
        "changed": _time(memory.updated_at),
    }
    return f"<memory{_attributes(attributes)}>{_json(memory.content)}</memory>"


def _attributes(values: Mapping[str, str | None]) -> str:
    return "".join(
        f" {name}={_json(' '.join(value.split()))}"
        for name, value in values.items()
        if value is not None
    )


def _weekday_and_time(moment: datetime | None) -> str | None:
    # The weekday, because people say "on Friday" and models miscount.
    return None if moment is None else f"{moment.astimezone(UTC):%A}, {_time(moment)}"


def _time(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    utc = moment.astimezone(UTC)
    whole_day = (utc.hour, utc.minute, utc.second) == (0, 0, 0)
    return f"{utc.date()}" if whole_day else f"{utc.date()} {utc:%H:%M} UTC"


def _json(value: Any) -> str:
    # In JSON a tag is escaped so that the value read back is the same.
    return _TAG.sub(r"\\u003c", json.dumps(value, ensure_ascii=False))
