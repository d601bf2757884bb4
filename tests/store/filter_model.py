"""The filter language over Python values: what PostgreSQL is held to, as plain as it can be."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

MISSING = object()
INTEGER = re.compile(r"\s*[+-]?\d+", re.ASCII)


@dataclass(frozen=True)
class Item:
    value: Any
    key: str = "item"
    importance: float | None = None
    version: int = 1
    created_at: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    updated_at: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    said_first: datetime | None = None
    said_last: datetime | None = None
    source_class: str | None = None
    stale: bool = False


COLUMNS = [field.name for field in fields(Item) if field.name != "value"]


def matches(condition: Mapping[str, Any], item: Item) -> bool:
    """Whether the item satisfies every entry of the filter."""
    return all(entry_matches(key, operand, item) for key, operand in condition.items())


def entry_matches(key: str, operand: Any, item: Item) -> bool:
    match key:
        case "$and":
            return all(matches(branch, item) for branch in operand)
        case "$or":
            return any(matches(branch, item) for branch in operand)
        case "$not":
            return not matches(operand, item)
        case "$meta":
            return all(
                column_matches(column_value(item, name), with_bounds(name, wanted))
                for name, wanted in operand.items()
            )
        case _:
            return field_matches(lookup(item.value, key), operand)


def lookup(value: Any, key: str) -> Any:
    """The literal key if the value has it, else the path; whole numbers step into lists."""
    if isinstance(value, dict) and key in value:
        return value[key]
    for part in key.split("."):
        if isinstance(value, dict):
            value = value.get(part, MISSING)
        elif isinstance(value, list) and INTEGER.fullmatch(part):
            index = int(part)
            value = value[index] if -len(value) <= index < len(value) else MISSING
        else:
            return MISSING
    return value


def field_matches(found: Any, wanted: Any) -> bool:
    if not isinstance(wanted, dict):
        return equal_or_missing(found, wanted)
    if not any(key.startswith("$") for key in wanted):
        return isinstance(found, dict) and includes(found, wanted)
    return all(OPERATORS[name](found, operand) for name, operand in wanted.items())


def column_value(item: Item, name: str) -> Any:
    value = getattr(item, name)
    return MISSING if value is None else value


def column_matches(found: Any, wanted: Any) -> bool:
    """A column is a field that is missing when NULL; times are compared as times."""
    wanted = as_times(wanted) if isinstance(found, datetime) else wanted
    return field_matches(found, wanted)


def with_bounds(name: str, wanted: Any) -> Any:
    """A year, month, or day stands for its first moment, or its end if a validity ends with it."""
    match wanted:
        case dict():
            return {key: with_bounds(name, operand) for key, operand in wanted.items()}
        case list():
            return [with_bounds(name, operand) for operand in wanted]
        case str() if name in ("valid_from", "valid_to") and len(wanted) <= len("2026-01-01"):
            year, month, day = (int(part) for part in (wanted + "-00-00").split("-")[:3])
            start = datetime(year, month or 1, day or 1, tzinfo=UTC)
            if name == "valid_from":
                return start.isoformat()
            if day:
                return (start + timedelta(days=1)).isoformat()
            return datetime(
                year + (month in (0, 12)), month % 12 + 1 if month else 1, 1, tzinfo=UTC
            ).isoformat()
        case _:
            return wanted


def as_times(wanted: Any) -> Any:
    match wanted:
        case dict():
            return {name: as_times(operand) for name, operand in wanted.items()}
        case list():
            return [as_times(operand) for operand in wanted]
        case str():
            moment = datetime.fromisoformat(wanted)
            return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        case _:
            return wanted


def kind(value: Any) -> str:
    """The JSON type: a boolean is no number, and 1 and 1.0 are the same number."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case _:
            return type(value).__name__


def equal(left: Any, right: Any) -> bool:
    if kind(left) != kind(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(equal, left, right))
    return bool(exact(left) == exact(right))


def exact(value: Any) -> Any:
    """Numbers as JSON spells them: 1e23 is not the double nearest to it."""
    return Decimal(repr(value)) if kind(value) == "number" else value


def equal_or_missing(found: Any, wanted: Any) -> bool:
    """Missing counts as null."""
    return equal(None if found is MISSING else found, wanted)


def includes(found: Any, wanted: Any) -> bool:
    """Objects by their entries, lists as sets of elements, everything else by equality."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        return all(key in found and includes(found[key], item) for key, item in wanted.items())
    if isinstance(found, list) and isinstance(wanted, list):
        return all(any(includes(element, item) for element in found) for item in wanted)
    return equal(found, wanted)


def contains(found: Any, wanted: Any) -> bool:
    match found, wanted:
        case str(), str():
            return wanted in found
        case dict(), dict():
            return includes(found, wanted)
        case list(), _:
            return includes(found, wanted if isinstance(wanted, list) else [wanted])
        case _:
            return False


def ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    """Only values of one kind are ordered; Python orders strings by code point."""
    return lambda found, wanted: (
        kind(found) == kind(wanted) and compare(exact(found), exact(wanted))
    )


OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "$eq": equal_or_missing,
    "$ne": lambda found, wanted: not equal_or_missing(found, wanted),
    "$in": lambda found, wanted: any(equal_or_missing(found, item) for item in wanted),
    "$nin": lambda found, wanted: not any(equal_or_missing(found, item) for item in wanted),
    "$gt": ordered(lambda found, wanted: found > wanted),
    "$gte": ordered(lambda found, wanted: found >= wanted),
    "$lt": ordered(lambda found, wanted: found < wanted),
    "$lte": ordered(lambda found, wanted: found <= wanted),
    "$exists": lambda found, wanted: (found is not MISSING) == wanted,
    "$contains": contains,
    "$not": lambda found, wanted: not field_matches(found, wanted),
}
