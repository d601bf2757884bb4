"""The size of results that models read: long values are shortened, each by a fair share."""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

MAX_RESULT_CHARACTERS = 40_000
"""Maximum characters of the values in a result; MCP sends each result twice, as text and object."""

_MARK_CHARACTERS = 40
"""Room for the mark of a cut, which names the number of characters left out."""


def json_length(value: object) -> int:
    """Return the number of characters of a value as JSON."""
    return len(json.dumps(value, ensure_ascii=False, default=str))


def count_fitting(sizes: Iterable[int], budget: int = MAX_RESULT_CHARACTERS) -> int:
    """Return how many of the first entries fit into a budget; at least one."""
    return max(sum(total <= budget for total in accumulate(sizes)), 1)


def fair_limit(sizes: Sequence[int], budget: int) -> int:
    """Return the limit of each size that uses up a budget: only those above it are cut."""
    rest = budget
    for place, size in enumerate(ascending := sorted(sizes)):
        share = rest // (len(ascending) - place)
        if size > share:
            return share
        rest -= size
    return max(sizes, default=0)


def shorten(value: object, limit: int) -> object:
    """Return a value whose JSON has about `limit` characters at most; cuts are marked in it."""
    if json_length(value) <= limit:
        return value
    if isinstance(value, str):
        return _shorten_text(value, limit)
    if isinstance(value, list):
        kept = value[: max(limit // _MARK_CHARACTERS, 1)]
        each = fair_limit([json_length(part) for part in kept], limit)
        cut = [shorten(part, each) for part in kept]
        left_out = len(value) - len(kept)
        return [*cut, f"… ({left_out:,} entries left out)"] if left_out else cut
    if isinstance(value, dict):
        return _shorten_object(value, limit)
    return value


def _shorten_object(value: Mapping[str, object], limit: int) -> dict[str, object]:
    kept = [
        (name, part)
        for name, part in list(value.items())[: max(limit // _MARK_CHARACTERS, 1)]
        if len(name) <= limit
    ]
    names = sum(len(name) + 6 for name, _ in kept)
    each = fair_limit([json_length(part) for _, part in kept], max(limit - names, 0))
    cut = {name: shorten(part, each) for name, part in kept}
    left_out = len(value) - len(kept)
    return {**cut, "…": f"({left_out:,} members left out)"} if left_out else cut


def _shorten_text(text: str, limit: int) -> str:
    end = max(limit - _MARK_CHARACTERS, 0)
    while end and json_length(text[:end]) > limit:  # escaped characters take more room
        end //= 2
    return f"{text[:end]}… ({len(text) - end:,} characters left out)"
