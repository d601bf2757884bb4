"""The filter language: JSON from a client, checked and parsed to a tree of conditions.

`parse_filter` refuses everything a client can get wrong, naming the offending place. What it
returns always compiles to SQL (`store/filter_sql.py`).
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias

from app.errors import InvalidRequestError
from app.json_values import MAX_SHOWN_KEY, UnstorableError, check_storable
from app.schemas import parse_date, parse_time

Operator: TypeAlias = Literal[
    "$eq", "$gt", "$gte", "$lt", "$lte", "$in", "$exists", "$contains", "subset"
]

MAX_DEPTH = 16
MAX_KEY_CHARACTERS = 2_000
MAX_VALUES = 5_000
MAX_OPERANDS = 1_000

MAX_BIGINT = 2**63 - 1

MAX_CONDITIONS = 200

_COMPARING: dict[str, Operator] = {
    "$eq": "$eq",
    "$gt": "$gt",
    "$gte": "$gte",
    "$lt": "$lt",
    "$lte": "$lte",
    "$in": "$in",
    "$exists": "$exists",
    "$contains": "$contains",
}
_NEGATED: dict[str, Operator] = {"$ne": "$eq", "$nin": "$in"}
_OPERATORS = ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$exists", "$contains")


@dataclass(frozen=True, slots=True)
class Field:
    """A place in the item's value: the literal key, or else the dotted path it spells."""

    key: str

    @property
    def literal(self) -> bool:
        """True if the key can only name an entry of a top-level object."""
        return "." not in self.key and not self.key.strip().lstrip("+-").isdecimal()


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the item itself, with its PostgreSQL type."""

    name: str
    type: Literal["text", "double precision", "bigint", "timestamptz", "boolean"]
    bound: Literal["start", "end"] | None = None
    """The bound of a partial date that the column holds, and that it is compared with."""


COLUMNS = {
    column.name: column
    for column in (
        Column("key", "text"),
        Column("importance", "double precision"),
        Column("version", "bigint"),
        Column("created_at", "timestamptz"),
        Column("updated_at", "timestamptz"),
        Column("valid_from", "timestamptz", "start"),
        Column("valid_to", "timestamptz", "end"),
        Column("said_first", "timestamptz"),
        Column("said_last", "timestamptz"),
        Column("source_class", "text"),
        Column("stale", "boolean"),
    )
}


@dataclass(frozen=True, slots=True)
class Comparison:
    """One operator applied to one field or column.

    The operand is decoded JSON for a field and the column's Python type (or None) for a column;
    `$in` holds a list of those. `subset` is the match of a plain object.
    """

    target: Field | Column
    operator: Operator
    operand: Any


@dataclass(frozen=True, slots=True)
class And:
    """Every part holds; with no parts, always true."""

    parts: tuple["Filter", ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one part holds."""

    parts: tuple["Filter", ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not hold."""

    part: "Filter"


Filter: TypeAlias = And | Or | Not | Comparison


class InvalidFilterError(InvalidRequestError):
    """The filter cannot be understood; the detail starts with the offending place."""

    code = "invalid_filter"
    title = "Invalid filter"

    def __init__(self, place: str, problem: str) -> None:
        super().__init__(f"{place}: {problem}", field=place)


def _shorten_key(key: str) -> str:
    """Cut a key short for a message and escape what a response could not carry."""
    cut = key if len(key) <= MAX_SHOWN_KEY else key[:MAX_SHOWN_KEY] + "…"
    return cut.encode(errors="backslashreplace").decode().replace("\0", "\\x00")


def _check_size(raw: Mapping[str, Any]) -> None:
    """Raise InvalidFilterError for a filter that is too large, or not storable as JSON."""
    try:
        count = check_storable(raw, "filter", max_depth=MAX_DEPTH)
    except UnstorableError as error:
        raise InvalidFilterError(error.place, error.problem) from error
    if count > MAX_VALUES:
        raise InvalidFilterError(
            "filter", f"has {count:,} JSON values; use at most {MAX_VALUES:,}, in several requests"
        )


def _parse_operand(target: Field | Column, operator: Operator, raw: Any, place: str) -> Any:
    """Check an operand and turn it into the type its column is compared with."""
    match operator:
        case "$exists":
            return _boolean(raw, place)
        case "$in":
            if not isinstance(raw, list):
                raise InvalidFilterError(place, "must be a list of values")
            if len(raw) > MAX_OPERANDS:
                raise InvalidFilterError(
                    place, f"lists {len(raw):,} values; use at most {MAX_OPERANDS:,}"
                )
            return [_value(target, item, f"{place}[{n}]") for n, item in enumerate(raw)]
        case "$gt" | "$gte" | "$lt" | "$lte":
            return _ordered(target, raw, place)
        case "$contains" if isinstance(target, Column):
            return _text(raw, place)
        case _:
            return _value(target, raw, place)


def _value(target: Field | Column, raw: Any, place: str) -> Any:
    return raw if raw is None or isinstance(target, Field) else _typed(target, raw, place)


def _ordered(target: Field | Column, raw: Any, place: str) -> Any:
    if isinstance(target, Column):
        return _typed(target, raw, place)
    if isinstance(raw, bool) or not isinstance(raw, int | float | str):
        raise InvalidFilterError(place, "must be a number or a string")
    return raw


def _typed(column: Column, raw: Any, place: str) -> Any:
    match column.type:
        case "text":
            return _text(raw, place)
        case "double precision":
            return _number(raw, place)
        case "bigint":
            return _whole(raw, place)
        case "boolean":
            return _boolean(raw, place)
        case "timestamptz":
            return _moment(column, raw, place)


def _boolean(raw: Any, place: str) -> bool:
    if not isinstance(raw, bool):
        raise InvalidFilterError(place, "must be true or false")
    return raw


def _text(raw: Any, place: str) -> str:
    if not isinstance(raw, str):
        raise InvalidFilterError(place, "must be a string")
    return raw


def _number(raw: Any, place: str) -> float:
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        raise InvalidFilterError(place, "must be a number")
    try:
        return float(raw)
    except OverflowError:
        return math.inf if raw > 0 else -math.inf


def _whole(raw: Any, place: str) -> int:
    whole = isinstance(raw, int) or (isinstance(raw, float) and raw.is_integer())
    if isinstance(raw, bool) or not whole or abs(raw) > MAX_BIGINT:
        raise InvalidFilterError(place, f"must be a whole number up to {MAX_BIGINT}")
    return int(raw)


def _moment(column: Column, raw: Any, place: str) -> datetime:
    if not isinstance(raw, str):
        raise InvalidFilterError(place, 'must be a time such as "2026-01-31T12:00:00Z"')
    try:
        return _bound(column, raw)
    except ValueError:
        raise InvalidFilterError(
            place, f'"{raw[:40]}" is not a time; write it like "2026-01-31T12:00:00Z"'
        ) from None


def _bound(column: Column, raw: str) -> datetime:
    """Return the time with which a column is compared; raises ValueError."""
    if column.bound is None:
        return parse_time(raw)
    date = parse_date(raw)
    return date.start if column.bound == "start" else date.end


def parse_filter(raw: Mapping[str, Any]) -> Filter:
    """Check a decoded JSON filter; raises `InvalidFilterError` naming the offending place."""
    _check_size(raw)
    parsed = _parse_filter(raw, "filter")
    if _count(parsed) > MAX_CONDITIONS:
        raise InvalidFilterError(
            "filter", f"has more than {MAX_CONDITIONS} conditions; split it over several requests"
        )
    return parsed


def _count(parsed: Filter) -> int:
    match parsed:
        case And(parts=parts) | Or(parts=parts):
            return max(1, sum(_count(part) for part in parts))
        case Not(part=part):
            return _count(part)
        case Comparison():
            return 1


def _all(parts: Iterable[Filter]) -> Filter:
    collected = tuple(parts)
    return collected[0] if len(collected) == 1 else And(collected)


def _parse_filter(raw: Any, place: str) -> Filter:
    if not isinstance(raw, Mapping):
        raise InvalidFilterError(place, 'must be an object such as {"field": "value"}')
    return _all(
        _parse_entry(key, value, f"{place}.{_shorten_key(key)}") for key, value in raw.items()
    )


def _parse_entry(key: str, value: Any, place: str) -> Filter:
    if len(key) > MAX_KEY_CHARACTERS:
        raise InvalidFilterError(place, f"has more than {MAX_KEY_CHARACTERS:,} characters")
    match key:
        case "$and":
            return And(_parse_branches(value, place))
        case "$or":
            return Or(_parse_branches(value, place))
        case "$not":
            return Not(_parse_filter(value, place))
        case "$meta":
            return _parse_meta(value, place)
        case _ if key.startswith("$"):
            raise _unknown_operator(key, ("$and", "$or", "$not", "$meta"), place)
        case _:
            return _parse_field(Field(key), value, place)


def _parse_branches(raw: Any, place: str) -> tuple[Filter, ...]:
    if not isinstance(raw, list) or not raw:
        raise InvalidFilterError(place, "must be a list of at least one filter")
    return tuple(_parse_filter(branch, f"{place}[{n}]") for n, branch in enumerate(raw))


def _parse_field(field: Field, raw: Any, place: str) -> Filter:
    if not isinstance(raw, Mapping):
        return Comparison(field, "$eq", raw)
    if any(key.startswith("$") for key in raw):
        return _parse_operators(field, raw, place)
    _refuse_operators(raw, place)
    return Comparison(field, "subset", raw)


def _refuse_operators(plain: Mapping[str, Any], place: str) -> None:
    """Refuse an operator inside a plain object: read as data, it would silently match nothing."""
    for key, value in plain.items():
        inner = f"{place}.{_shorten_key(key)}"
        if key in (*_OPERATORS, "$not"):
            raise InvalidFilterError(
                inner, 'stands inside a plain object; write a path instead: {"a.b": {"$gt": 1}}'
            )
        if isinstance(value, Mapping):
            _refuse_operators(value, inner)


def _parse_meta(raw: Any, place: str) -> Filter:
    if not isinstance(raw, Mapping):
        raise InvalidFilterError(place, f"must be an object of {', '.join(COLUMNS)}")
    return _all(
        _parse_column(name, value, f"{place}.{_shorten_key(name)}") for name, value in raw.items()
    )


def _parse_column(name: str, raw: Any, place: str) -> Filter:
    column = COLUMNS.get(name)
    if column is None:
        raise InvalidFilterError(
            place, f'unknown field "{_shorten_key(name)}"; use one of {", ".join(COLUMNS)}'
        )
    if isinstance(raw, Mapping) and raw:
        return _parse_operators(column, raw, place)
    return Comparison(column, "$eq", _parse_operand(column, "$eq", raw, place))


def _parse_operators(target: Field | Column, raw: Mapping[str, Any], place: str) -> Filter:
    plain = [key for key in raw if not key.startswith("$")]
    if plain:
        raise InvalidFilterError(
            place,
            f'"{_shorten_key(plain[0])}" is not an operator; operators and plain keys do not mix',
        )
    return _all(
        _parse_operator(target, name, operand, f"{place}.{_shorten_key(name)}")
        for name, operand in raw.items()
    )


def _parse_operator(target: Field | Column, name: str, raw: Any, place: str) -> Filter:
    known = _known_operators(target)
    if name not in known:
        raise _unknown_operator(name, known, place)
    if name == "$not":
        return Not(_parse_negated(target, raw, place))
    if name in _NEGATED:
        operator = _NEGATED[name]
        return Not(Comparison(target, operator, _parse_operand(target, operator, raw, place)))
    operator = _COMPARING[name]
    return Comparison(target, operator, _parse_operand(target, operator, raw, place))


def _parse_negated(target: Field | Column, raw: Any, place: str) -> Filter:
    if isinstance(target, Field):
        return _parse_field(target, raw, place)
    return _parse_column(target.name, raw, place)


def _known_operators(target: Field | Column) -> tuple[str, ...]:
    searchable = isinstance(target, Field) or target.type == "text"
    return (*(_OPERATORS if searchable else _OPERATORS[:-1]), "$not")


def _unknown_operator(name: str, known: Iterable[str], place: str) -> InvalidFilterError:
    return InvalidFilterError(
        place, f'unknown operator "{_shorten_key(name)}"; use one of {", ".join(known)}'
    )
