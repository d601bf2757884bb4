"""Text for prompts: templates, and conversations and memories between tags no text can imitate."""

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from string import Template

from app.conversations.memories import Memory
from app.conversations.messages import Turn
from app.partial_dates import PartialDate, Precision


class Templates:
    """The texts in a package's `templates/*.md`; `$name` is a placeholder.

    A text may have sections, each below a line `## title`.
    """

    def __init__(self, package: str) -> None:
        folder = files(package).joinpath("templates")
        names = sorted(file.name for file in folder.iterdir() if file.name.endswith(".md"))
        self._texts: Mapping[str, str] = {
            name.removesuffix(".md"): folder.joinpath(name).read_text(encoding="utf-8").strip()
            for name in names
        }
        self._sections = {name: _split_sections(text) for name, text in self._texts.items()}

    @property
    def version(self) -> str:
        """A hash of all texts."""
        return hashlib.sha256("\0".join(self._texts.values()).encode()).hexdigest()[:12]

    def fill(self, name: str, /, **values: str) -> str:
        """Return a text with its placeholders replaced by values, which are used as they are."""
        return Template(self._texts[name]).substitute(values)

    def fill_section(self, name: str, title: str, /, **values: str) -> str:
        """Return one section of a text with its placeholders replaced."""
        return Template(self._sections[name][title]).substitute(values)


class Tags:
    """Tags that mark material in a prompt, and whose imitations in it are escaped.

    Names are regular expressions. All other markup in the material stays as it is.
    """

    def __init__(self, *names: str) -> None:
        self._pattern = re.compile(rf"<(?=[\s/]*(?:{'|'.join(names)})\b)", re.IGNORECASE)

    def escape(self, text: str) -> str:
        """Return a text with `&lt;` for the `<` of each tag."""
        return self._pattern.sub("&lt;", text)

    def escape_json(self, value: object) -> str:
        """Return a value as JSON whose tags are escaped so that reading it gives the same value."""
        return self._pattern.sub(r"\\u003c", json.dumps(value, ensure_ascii=False))

    def block(self, tag: str, text: str, attributes: Mapping[str, str | None] | None = None) -> str:
        """Return a text, already escaped, between tags on lines of their own."""
        opening = self.open(tag, attributes or {})
        return "\n".join([opening, *([text] if text else []), f"</{tag}>"])

    def open(self, tag: str, attributes: Mapping[str, str | None]) -> str:
        """Return an opening tag; attributes that are None are left out."""
        written = "".join(
            f" {name}={self.escape_json(' '.join(value.split()))}"
            for name, value in attributes.items()
            if value is not None
        )
        return f"<{tag}{written}>"


CONVERSATION_TAGS = Tags("conversation", "earlier", "instructions", "memory", "memories", "message")
"""The tags of conversations, memories, and instructions."""


def render_date(moment: datetime | None) -> str:
    """Return the date in UTC with its weekday, from which models work out relative dates."""
    return "an unknown date" if moment is None else f"{moment.astimezone(UTC):%A, %Y-%m-%d}"


def render_text(turn: Turn) -> str:
    """Return the text of a message; of a very long one, its beginning and its end."""
    half = turn.shown_characters // 2
    rest = len(turn.text) - 2 * half
    if len(turn.text) <= turn.shown_characters:
        return turn.text
    return f"{turn.text[:half]}\n[… {rest:,} characters left out …]\n{turn.text[-half:]}"


def measure_turn(turn: Turn) -> int:
    """Return how many characters a message takes."""
    return len(_render_turn(1, turn)) + 2


def measure_memory(memory: Memory) -> int:
    """Return how many characters a memory takes."""
    return len(_render_memory(memory)) + 1


def render_turns(turns: Sequence[Turn], context_turns: int = 0) -> str:
    """Return messages; the first `context_turns` in a block of their own, as context only."""
    rendered = [_render_turn(number, turn) for number, turn in enumerate(turns, start=1)]
    earlier, latest = rendered[:context_turns], rendered[context_turns:]
    blocks = [CONVERSATION_TAGS.block("earlier", "\n".join(earlier))] if earlier else []
    return "\n\n".join([*blocks, CONVERSATION_TAGS.block("conversation", "\n".join(latest))])


def render_memories(
    memories: Collection[Memory], *, none: str = "No memories are kept yet."
) -> str:
    """Return memories with their short ids, and with their content as JSON."""
    if not memories:
        return none
    return CONVERSATION_TAGS.block("memories", "\n".join(map(_render_memory, memories)))


def find_message_ids(shown: Sequence[object], turns: Sequence[Turn]) -> tuple[str, ...]:
    """Return the ids of messages, given those that models see; unknown ones are left out.

    Models see messages numbered from 1: such ids are short and unique, and cannot be forged.
    """
    known = {str(number): turn.id for number, turn in enumerate(turns, start=1)}
    return tuple(dict.fromkeys(known[str(id_)] for id_ in shown if str(id_) in known))


def _split_sections(text: str) -> dict[str, str]:
    parts = re.split(r"^## (\w+)\n", text, flags=re.MULTILINE)
    return {title: body.strip() for title, body in zip(parts[1::2], parts[2::2], strict=True)}


def _render_turn(number: int, turn: Turn) -> str:
    opening = CONVERSATION_TAGS.open(
        "message",
        {
            "id": str(number),
            "from": turn.speaker,
            "role": turn.role if turn.role != turn.speaker else None,
            "time": _render_weekday_and_time(turn.said_at),
        },
    )
    return f"{opening}\n{CONVERSATION_TAGS.escape(render_text(turn))}\n</message>"


def _render_memory(memory: Memory) -> str:
    opening = CONVERSATION_TAGS.open(
        "memory",
        {
            "id": memory.id,
            "kind": memory.kind,
            "importance": None if memory.importance is None else f"{memory.importance:g}",
            "since": _render_date(memory.valid_from),
            "until": _render_date(memory.valid_to),
            "said": _render_said(memory),
            "stale": "true" if memory.is_stale else None,
            "changed": None if memory.said_last else _render_time(memory.updated_at),
        },
    )
    return f"{opening}{CONVERSATION_TAGS.escape_json(memory.content)}</memory>"


def _render_date(date: PartialDate | None) -> str | None:
    if date is None:
        return None
    return _render_time(date.start) if date.precision is Precision.TIME else str(date)


def _render_said(memory: Memory) -> str | None:
    """Return when a memory was said, for the first and the last time."""
    first, last = _render_time(memory.said_first), _render_time(memory.said_last)
    return last if first in (None, last) else f"{first} to {last}"


def _render_weekday_and_time(moment: datetime | None) -> str | None:
    # The weekday, because people say "on Friday" and models miscount.
    return None if moment is None else f"{moment.astimezone(UTC):%A}, {_render_time(moment)}"


def _render_time(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    utc = moment.astimezone(UTC)
    is_whole_day = (utc.hour, utc.minute, utc.second) == (0, 0, 0)
    return f"{utc.date()}" if is_whole_day else f"{utc.date()} {utc:%H:%M} UTC"
