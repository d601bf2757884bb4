"""Reading a client's JSON filter, naming the offending place when it makes no sense."""

from collections.abc import Iterable, Mapping
from typing import Any

from app.store.filters.checks import MAX_KEY_CHARACTERS, InvalidFilterError, check_filter, shown
from app.store.filters.operands import parse_operand
from app.store.filters.tree import (
    COLUMNS,
    And,
    Column,
    Comparison,
    Field,
    Filter,
    Not,
    Operator,
    Or,
)

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


def parse_filter(raw: Mapping[str, Any]) -> Filter:
    """Check a decoded JSON filter; raises `InvalidFilterError` naming the offending place."""
    check_filter(raw)
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
    return _all(_parse_entry(key, value, f"{place}.{shown(key)}") for key, value in raw.items())


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
        inner = f"{place}.{shown(key)}"
        if key in (*_OPERATORS, "$not"):
            raise InvalidFilterError(
                inner, 'stands inside a plain object; write a path instead: {"a.b": {"$gt": 1}}'
            )
        if isinstance(value, Mapping):
            _refuse_operators(value, inner)


def _parse_meta(raw: Any, place: str) -> Filter:
    if not isinstance(raw, Mapping):
        raise InvalidFilterError(place, f"must be an object of {', '.join(COLUMNS)}")
    return _all(_parse_column(name, value, f"{place}.{shown(name)}") for name, value in raw.items())


def _parse_column(name: str, raw: Any, place: str) -> Filter:
    column = COLUMNS.get(name)
    if column is None:
        raise InvalidFilterError(
            place, f'unknown field "{shown(name)}"; use one of {", ".join(COLUMNS)}'
        )
    if isinstance(raw, Mapping) and raw:
        return _parse_operators(column, raw, place)
    return Comparison(column, "$eq", parse_operand(column, "$eq", raw, place))


def _parse_operators(target: Field | Column, raw: Mapping[str, Any], place: str) -> Filter:
    plain = [key for key in raw if not key.startswith("$")]
    if plain:
        raise InvalidFilterError(
            place, f'"{shown(plain[0])}" is not an operator; operators and plain keys do not mix'
        )
    return _all(
        _parse_operator(target, name, operand, f"{place}.{shown(name)}")
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
        return Not(Comparison(target, operator, parse_operand(target, operator, raw, place)))
    operator = _COMPARING[name]
    return Comparison(target, operator, parse_operand(target, operator, raw, place))


def _parse_negated(target: Field | Column, raw: Any, place: str) -> Filter:
    if isinstance(target, Field):
        return _parse_field(target, raw, place)
    return _parse_column(target.name, raw, place)


def _known_operators(target: Field | Column) -> tuple[str, ...]:
    searchable = isinstance(target, Field) or target.type == "text"
    return (*(_OPERATORS if searchable else _OPERATORS[:-1]), "$not")


def _unknown_operator(name: str, known: Iterable[str], place: str) -> InvalidFilterError:
    return InvalidFilterError(
        place, f'unknown operator "{shown(name)}"; use one of {", ".join(known)}'
    )
