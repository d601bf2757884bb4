"""Operands: their types for a field of the value, and for each type of column."""

import math
from datetime import datetime
from typing import Any

from app.schemas import parse_time
from app.store.filters.checks import MAX_OPERANDS, InvalidFilterError
from app.store.filters.tree import Column, Field, Operator

MAX_BIGINT = 2**63 - 1


def parse_operand(target: Field | Column, operator: Operator, raw: Any, place: str) -> Any:
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
        case "timestamptz":
            return _moment(raw, place)


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


def _moment(raw: Any, place: str) -> datetime:
    if not isinstance(raw, str):
        raise InvalidFilterError(place, 'must be a time such as "2026-01-31T12:00:00Z"')
    try:
        return parse_time(raw)
    except ValueError:
        raise InvalidFilterError(
            place, f'"{raw[:40]}" is not a time; write it like "2026-01-31T12:00:00Z"'
        ) from None
