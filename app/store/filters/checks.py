"""What holds for every filter, whatever it says: text, numbers, nesting."""

import math
from collections.abc import Mapping
from typing import Any

from app.errors import InvalidRequestError
from app.store.values import MAX_DIGITS, count_storable, is_short

MAX_DEPTH = 16
MAX_SHOWN_KEY = 60
MAX_KEY_CHARACTERS = 2_000
MAX_VALUES = 5_000
MAX_OPERANDS = 1_000


class InvalidFilterError(InvalidRequestError):
    """The filter cannot be understood; the detail starts with the offending place."""

    code = "invalid_filter"
    title = "Invalid filter"

    def __init__(self, place: str, problem: str) -> None:
        super().__init__(f"{place}: {problem}", field=place)


def shown(key: str) -> str:
    """Cut a key short for a message and escape what a response could not carry."""
    cut = key if len(key) <= MAX_SHOWN_KEY else key[:MAX_SHOWN_KEY] + "…"
    return cut.encode(errors="backslashreplace").decode().replace("\0", "\\x00")


def check_filter(raw: Mapping[str, Any]) -> None:
    """Raise InvalidFilterError for a filter that is too large, or not storable as JSON."""
    count = count_storable(raw, max_depth=MAX_DEPTH)
    if count is None:
        check_json(raw, "filter")
    elif count > MAX_VALUES:
        raise InvalidFilterError(
            "filter", f"has {count:,} JSON values; use at most {MAX_VALUES:,}, in several requests"
        )


def check_json(value: Any, place: str, depth: int = 1) -> None:
    """Refuse what PostgreSQL cannot hold as JSON, and what is nested too deep."""
    if isinstance(value, Mapping | list) and depth > MAX_DEPTH:
        raise InvalidFilterError(
            place, f"is nested deeper than {MAX_DEPTH} levels of objects and arrays; flatten it"
        )
    if isinstance(value, Mapping):
        for key, item in value.items():
            inner = f"{place}.{shown(key)}"
            _check_text(key, inner)
            check_json(item, inner, depth + 1)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            check_json(item, f"{place}[{index}]", depth + 1)
    elif isinstance(value, str):
        _check_text(value, place)
    elif isinstance(value, int | float):
        _check_number(value, place)


def _check_text(text: str, place: str) -> None:
    if "\0" in text:
        raise InvalidFilterError(place, "contains a NUL character; remove it")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidFilterError(
            place, "contains half of a surrogate pair; send whole Unicode characters"
        ) from None


def _check_number(number: float, place: str) -> None:
    if isinstance(number, int):
        if not is_short(number):
            raise InvalidFilterError(place, f"has more than {MAX_DIGITS:,} digits; shorten it")
    elif not math.isfinite(number):
        raise InvalidFilterError(place, "is not a finite number; JSON has no NaN or Infinity")
