"""Writing a checked filter as an SQL condition.

Every JSON comparison is jsonb against jsonb or stands behind its `jsonb_typeof`, so that no
stored value can make PostgreSQL raise. Every condition is true or false, never NULL, so that NOT
means what it says.
"""

import json
from typing import Any

from app.db.database import Parameters
from app.store.filters import And, Column, Comparison, Field, Filter, Not, Operator, Or

_SYMBOLS = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}


def to_sql(parsed: Filter, parameters: Parameters) -> str:
    """Write the condition over the alias `i`, binding its keys and values to `parameters`."""
    match parsed:
        case And(parts=()):
            return "TRUE"
        case And(parts=parts):
            return "(" + " AND ".join(to_sql(part, parameters) for part in parts) + ")"
        case Or(parts=parts):
            return "(" + " OR ".join(to_sql(part, parameters) for part in parts) + ")"
        case Not(part=part):
            return f"(NOT {to_sql(part, parameters)})"
        case Comparison(target=target, operator=operator, operand=operand):
            if isinstance(target, Column):
                return _column_sql(target, operator, operand, parameters)
            return _field_sql(target, operator, operand, parameters)


def _field_sql(field: Field, operator: Operator, operand: Any, parameters: Parameters) -> str:
    match operator:
        case "$eq":
            return _equals(field, operand, parameters)
        case "subset":
            return _holds(field, operand, parameters)
        case "$in":
            return _one_of(field, operand, parameters)
        case "$exists":
            return _exists(_field(field, parameters), operand)
        case "$contains":
            return _contains(field, operand, parameters)
        case "$gt" | "$gte" | "$lt" | "$lte":
            return _ordered(field, _SYMBOLS[operator], operand, parameters)


def _field(field: Field, parameters: Parameters) -> str:
    """Write the jsonb found at the field, or NULL if the item lacks it."""
    path = parameters.add(field.key.split("."), "text[]")
    if "." not in field.key:
        return f"(i.value #> {path})"
    return f"coalesce(i.value -> {parameters.add(field.key, 'text')}, i.value #> {path})"


def _json(value: Any, parameters: Parameters) -> str:
    return parameters.add(json.dumps(value, ensure_ascii=False, allow_nan=False), "jsonb")


def _exists(expression: str, wanted: bool) -> str:
    return f"({expression} IS {'NOT ' if wanted else ''}NULL)"


def _equals(field: Field, operand: Any, parameters: Parameters) -> str:
    if operand is None:
        return f"(coalesce({_field(field, parameters)}, 'null') = 'null')"
    if field.literal and not isinstance(operand, dict | list):
        return _holds(field, operand, parameters)
    return f"coalesce({_field(field, parameters)} = {_json(operand, parameters)}, FALSE)"


def _holds(field: Field, operand: Any, parameters: Parameters) -> str:
    """Write containment in the field, in the form a GIN index on `value` answers if it can.

    Containment of a scalar is equality inside an object, but not at the top of a jsonb value,
    where an array contains the scalars in it: a scalar is only passed for a literal field.
    """
    if field.literal:
        return f"(i.value @> {_json({field.key: operand}, parameters)})"
    return f"coalesce({_field(field, parameters)} @> {_json(operand, parameters)}, FALSE)"


def _one_of(field: Field, operands: list[Any], parameters: Parameters) -> str:
    found = _field(field, parameters)
    texts = [json.dumps(operand, ensure_ascii=False, allow_nan=False) for operand in operands]
    matched = f"coalesce({found} = ANY({parameters.add(texts, 'jsonb[]')}), FALSE)"
    return f"({found} IS NULL OR {matched})" if None in operands else matched


def _contains(field: Field, operand: Any, parameters: Parameters) -> str:
    elements = operand if isinstance(operand, list) else [operand]
    among = _holds(field, elements, parameters)
    if isinstance(operand, dict):
        return f"({among} OR {_holds(field, operand, parameters)})"
    if not isinstance(operand, str):
        return among
    found = _field(field, parameters)
    position = f"strpos({_text(found)}, {parameters.add(operand, 'text')})"
    return (
        f"({among} OR CASE jsonb_typeof({found}) WHEN 'string' THEN {position} > 0 ELSE FALSE END)"
    )


def _ordered(field: Field, symbol: str, operand: float | str, parameters: Parameters) -> str:
    found = _field(field, parameters)
    if isinstance(operand, str):
        kind, compared = "string", f"{_text(found)} {symbol} {parameters.add(operand, 'text')}"
    else:
        kind, compared = "number", f"{found} {symbol} {_json(operand, parameters)}"
    return f"CASE jsonb_typeof({found}) WHEN '{kind}' THEN {compared} ELSE FALSE END"


def _text(found: str) -> str:
    """Write the text of a jsonb string, compared by code point."""
    return f"({found} #>> '{{}}') COLLATE \"C\""


def _column_sql(column: Column, operator: Operator, operand: Any, parameters: Parameters) -> str:
    name = f'i.{column.name} COLLATE "C"' if column.type == "text" else f"i.{column.name}"
    match operator:
        case "$exists":
            return _exists(name, operand)
        case "$eq" | "subset":
            if operand is None:
                return _exists(name, wanted=False)
            return _known(name, f"{name} = {parameters.add(operand, column.type)}")
        case "$in":
            values = [item for item in operand if item is not None]
            found = _known(name, f"{name} = ANY({parameters.add(values, f'{column.type}[]')})")
            return f"({name} IS NULL OR {found})" if None in operand else found
        case "$contains":
            return f"(strpos({name}, {parameters.add(operand, 'text')}) > 0)"
        case "$gt" | "$gte" | "$lt" | "$lte":
            compared = f"{name} {_SYMBOLS[operator]} {parameters.add(operand, column.type)}"
            return _known(name, compared)


def _known(name: str, condition: str) -> str:
    """Make a condition false where the column is NULL, leaving it open to an index."""
    return f"({name} IS NOT NULL AND {condition})"
