"""Limits of every filter, and the error that names the offending place."""

from collections.abc import Mapping
from typing import Any

from app.errors import InvalidRequestError
from app.json_values import MAX_SHOWN_KEY, UnstorableError, check_storable

MAX_DEPTH = 16
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
    try:
        count = check_storable(raw, "filter", max_depth=MAX_DEPTH)
    except UnstorableError as error:
        raise InvalidFilterError(error.place, error.problem) from error
    if count > MAX_VALUES:
        raise InvalidFilterError(
            "filter", f"has {count:,} JSON values; use at most {MAX_VALUES:,}, in several requests"
        )
