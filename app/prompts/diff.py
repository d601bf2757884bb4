"""What one text says otherwise than another, in unified form."""

from collections.abc import Iterator
from difflib import Match, SequenceMatcher

from typing_extensions import override

MAX_COMPARED_LINES = 1_000
"""Between the first and the last change. Comparing more could take seconds: the time grows with
the square of the lines."""

_CONTEXT_LINES = 3
_NO_NEWLINE = "\\ No newline at end of file\n"


def unified_diff(old: str, new: str, old_name: str, new_name: str) -> str:
    """Return the changed lines with three lines around them; nothing where there are none.

    Where too many lines lie between the first and the last change, all of them count as changed.
    """
    if old == new:
        return ""
    return "".join([f"--- {old_name}\n", f"+++ {new_name}\n", *_hunks(_lines(old), _lines(new))])


class _BoundedMatcher(SequenceMatcher[str]):
    """Compares what lies between equal beginnings and equal ends, unless that is too much."""

    def __init__(self, old: list[str], new: list[str]) -> None:
        super().__init__(None, old, new)
        self._old = old
        self._new = new

    @override
    def get_matching_blocks(self) -> list[Match]:
        """Return which lines are the same, as pairs of ranges."""
        old, new = self._old, self._new
        head = _equal_lines(old, new)
        tail = _equal_lines(old[head:][::-1], new[head:][::-1])
        middle = old[head : len(old) - tail], new[head : len(new) - tail]
        blocks = [(0, 0, head)]
        if max(map(len, middle)) <= MAX_COMPARED_LINES:
            matched = SequenceMatcher(None, *middle).get_matching_blocks()
            blocks += [(i + head, j + head, size) for i, j, size in matched]
        blocks += [(len(old) - tail, len(new) - tail, tail), (len(old), len(new), 0)]
        return [Match(*block) for block in blocks]


def _equal_lines(old: list[str], new: list[str]) -> int:
    """Return how many lines are the same at the beginning."""
    pairs = enumerate(zip(old, new, strict=False))
    return next((number for number, (a, b) in pairs if a != b), min(len(old), len(new)))


def _hunks(old: list[str], new: list[str]) -> Iterator[str]:
    for group in _BoundedMatcher(old, new).get_grouped_opcodes(_CONTEXT_LINES):
        (_, i, _, j, _), (_, _, i_end, _, j_end) = group[0], group[-1]
        yield f"@@ -{_range(i, i_end)} +{_range(j, j_end)} @@\n"
        for tag, i1, i2, j1, j2 in group:
            if tag == "equal":
                yield from _marked(" ", old[i1:i2])
            else:
                yield from _marked("-", old[i1:i2])
                yield from _marked("+", new[j1:j2])


def _marked(mark: str, lines: list[str]) -> Iterator[str]:
    for line in lines:
        yield mark + line if line.endswith("\n") else f"{mark}{line}\n{_NO_NEWLINE}"


def _range(begin: int, end: int) -> str:
    """Return lines as the form has them: from 1, how many; an empty range by the line before."""
    size = end - begin
    if size == 1:
        return f"{begin + 1}"
    return f"{begin + 1 if size else begin},{size}"


def _lines(text: str) -> list[str]:
    """Split at newlines alone, which stay: other characters that end lines are text."""
    *whole, last = text.split("\n")
    return [line + "\n" for line in whole] + ([last] if last else [])
