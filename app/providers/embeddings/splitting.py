"""Cuts long texts into overlapping passages, at the ends of sentences or words where it can."""

import re
from collections.abc import Callable, Iterator

# Tokenisers delete control characters and so join the words around them: not a place to cut.
_SPACE = r"[^\S\x0b\x0c\x1c-\x1f\x85]"
_SPACES = re.compile(_SPACE + "+")
_SENTENCE_END = re.compile(rf"[.!?…][\"')\]]*{_SPACE}+|[。！？]|\n+")  # noqa: RUF001 - Chinese marks
_OVERLAP = 0.1


def split_text(text: str, reach: Callable[[int], int]) -> list[str]:
    """Return the passages of `spans`, stripped, without those that are blank."""
    passages = (text[start:end].strip() for start, end in spans(text, reach))
    return [passage for passage in passages if passage]


def spans(
    text: str, reach: Callable[[int], int], *, overlap: float = _OVERLAP
) -> Iterator[tuple[int, int]]:
    """Yield the start and end of passages that together cover `text`.

    A passage repeats at most the fraction `overlap` of the one before it. `reach(start)` is the
    furthest end of a passage from `start`: beyond `start`, and beyond the text if all the rest
    fits.
    """
    start, end = 0, 0
    while end < len(text):
        limit = reach(start)
        if limit <= end:
            start = end
            limit = reach(start)
        end = len(text) if limit >= len(text) else _best_end(text, start, limit, end)
        yield start, end
        start = _next_start(text, end, int((end - start) * overlap))


def split_by_characters(text: str, limit: int) -> list[str]:
    """Return passages of at most `limit` characters; none for blank text."""
    stripped = text.strip()
    return split_text(stripped, lambda start: start + limit)


def _best_end(text: str, start: int, limit: int, previous_end: int) -> int:
    """Prefer the last sentence end in the second half of the reach, then the last space."""
    floor = max(start + (limit - start) // 2, previous_end)
    for boundary in (_SENTENCE_END, _SPACES):
        ends = [match.end() for match in boundary.finditer(text, floor, limit)]
        if ends and ends[-1] > floor:
            return ends[-1]
    return limit


def _next_start(text: str, end: int, overlap: int) -> int:
    """Step back from `end` to the first word that begins within the overlap, if one does."""
    space = _SPACES.search(text, end - overlap, end)
    return space.end() if space else end
