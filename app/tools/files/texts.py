"""Texts of files: shown with line numbers, and edited."""

import re
from collections.abc import Sequence

from app.tools.base import ToolError

MAX_LINES = 999_999
"""What fits in front of a line; Anthropic's documentation sets it."""

_NUMBER_WIDTH = 6
_SNIPPET_LINES = 2
"""Shown before and after a change."""

_SHOWN_OCCURRENCES = 20


def lines_of(text: str) -> list[str]:
    """Return the lines; the newline that ends the last one begins no other."""
    return text.removesuffix("\n").split("\n") if text else []


def shown(path: str, text: str, view_range: Sequence[int] | None) -> str:
    """Return a file with line numbers, or a range of it; -1 is the last line."""
    lines = lines_of(text)
    check_length(path, text)
    first, last = (1, len(lines)) if view_range is None else _range(view_range, len(lines))
    return "\n".join(
        [f"Here's the content of {path} with line numbers:", *_numbered(lines, first, last)]
    )


def check_length(path: str, text: str) -> None:
    """Raise ToolError for a file of too many lines."""
    if text.count("\n") >= MAX_LINES and len(lines_of(text)) > MAX_LINES:
        raise ToolError(f"File {path} exceeds maximum line limit of {MAX_LINES:,} lines.")


def replaced(path: str, text: str, old: str, new: str) -> tuple[str, str]:
    """Return the text with `old`, which must be there once, replaced; and what to tell of it."""
    if not old:
        raise ToolError("No replacement was performed, old_str is empty. Say what to replace.")
    places = [found.start() for found in re.finditer(re.escape(old), text)]
    if not places:
        raise ToolError(
            f"No replacement was performed, old_str `{old}` did not appear verbatim in {path}."
        )
    if len(places) > 1:
        raise ToolError(
            f"No replacement was performed. Multiple occurrences of old_str `{old}` in lines: "
            f"{_line_numbers(text, places)}. Please ensure it is unique"
        )
    after = text[: places[0]] + new + text[places[0] + len(old) :]
    first = text.count("\n", 0, places[0]) + 1
    last = first + new.count("\n")
    snippet = _numbered(lines_of(after), first - _SNIPPET_LINES, last + _SNIPPET_LINES)
    told = "The memory file has been edited. Here is the snippet showing the change "
    return after, "\n".join([f"{told}(with line numbers):", *snippet])


def inserted(text: str, line: int, addition: str) -> str:
    """Return the text with lines added after a line; 0 is the beginning. It ends a line then."""
    lines = lines_of(text)
    if not 0 <= line <= len(lines):
        raise ToolError(
            f"Error: Invalid `insert_line` parameter: {line}. "
            f"It should be within the range of lines of the file: [0, {len(lines)}]"
        )
    added = addition.removesuffix("\n").split("\n")
    return "\n".join([*lines[:line], *added, *lines[line:]]) + "\n"


def _range(view_range: Sequence[int], length: int) -> tuple[int, int]:
    first, last = view_range
    last = length if last == -1 else last
    if not (1 <= first <= last and first <= max(length, 1)):
        raise ToolError(
            f"Error: Invalid `view_range` parameter: {list(view_range)}. Give the first and the "
            f"last line, -1 for the end; the file has {length} lines."
        )
    return first, last


def _numbered(lines: Sequence[str], first: int, last: int) -> list[str]:
    """Return lines as they are shown; a range that reaches beyond the text is cut."""
    first = max(first, 1)
    return [
        f"{number:>{_NUMBER_WIDTH}}\t{line}"
        for number, line in enumerate(lines[first - 1 : max(last, 0)], first)
    ]


def _line_numbers(text: str, places: Sequence[int]) -> str:
    numbers = [str(text.count("\n", 0, at) + 1) for at in places[:_SHOWN_OCCURRENCES]]
    return ", ".join(numbers) + (", …" if len(places) > _SHOWN_OCCURRENCES else "")
