"""Unified diffs of texts, in bounded time."""

import difflib
import re
from collections.abc import Iterator, Sequence

MAX_COMPARED_LINES = 1_000
"""Maximum lines between the first and the last change. The time grows with their square, so
comparing more could take seconds."""

_CONTEXT_LINES = 3
_NO_NEWLINE = "\n\\ No newline at end of file\n"
_HUNK = re.compile(r"^@@ -(\d+)(\S*) \+(\d+)(\S*) @@\n")


def unified_diff(old: str, new: str, old_name: str, new_name: str) -> str:
    """Return the changed lines with three lines of context; empty if the texts are equal.

    If too many lines lie between the first and the last change, all of them count as changed.
    """
    if old == new:
        return ""
    before, after = _split_lines(old), _split_lines(new)
    head = _count_equal(before, after)
    tail = _count_equal(before[head:][::-1], after[head:][::-1])
    start, end = max(head - _CONTEXT_LINES, 0), max(tail - _CONTEXT_LINES, 0)
    before, after = before[start : len(before) - end], after[start : len(after) - end]
    head, tail = head - start, tail - end
    if max(len(before), len(after)) - head - tail <= MAX_COMPARED_LINES:
        _, _, *lines = difflib.unified_diff(before, after, n=_CONTEXT_LINES)
    else:
        lines = list(_replace_all(before, after, head, tail))
    lines = [_HUNK.sub(lambda found: _shift(found, start), line) for line in lines]
    ended = [line if line.endswith("\n") else line + _NO_NEWLINE for line in lines]
    return "".join([f"--- {old_name}\n", f"+++ {new_name}\n", *ended])


def _split_lines(text: str) -> list[str]:
    """Split only at newlines, which stay; other characters that end lines are text."""
    *lines, last = text.split("\n")
    return [line + "\n" for line in lines] + ([last] if last else [])


def _count_equal(before: Sequence[str], after: Sequence[str]) -> int:
    """Return how many lines are equal at the beginning."""
    pairs = enumerate(zip(before, after, strict=False))
    return next((number for number, (a, b) in pairs if a != b), min(len(before), len(after)))


def _replace_all(
    before: Sequence[str], after: Sequence[str], head: int, tail: int
) -> Iterator[str]:
    """Yield one hunk that replaces every line between the equal ends."""
    old_first, new_first = (1 if before else 0), (1 if after else 0)
    yield f"@@ -{old_first},{len(before)} +{new_first},{len(after)} @@\n"
    yield from (" " + line for line in before[:head])
    yield from ("-" + line for line in before[head : len(before) - tail])
    yield from ("+" + line for line in after[head : len(after) - tail])
    yield from (" " + line for line in before[len(before) - tail :])


def _shift(header: re.Match[str], start: int) -> str:
    """Return the header of a hunk whose lines were counted from `start`."""
    old, old_size, new, new_size = header.groups()
    return f"@@ -{int(old) + start}{old_size} +{int(new) + start}{new_size} @@\n"
