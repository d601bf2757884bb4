"""Reading what a model sends, and telling it what is wrong with that."""

import json
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from app.json_values import UnstorableError, check_storable, check_values, parse_json
from app.tools.base import ToolError
from app.validation import invalid_request, list_errors

_MAX_VALUES = 50_000

_SHOWN = 200
"""Characters of arguments that cannot be read."""


def read_arguments(sent: Any) -> dict[str, Any]:
    """Return a model's arguments; it may leave them out where it has none. Raises ToolError."""
    arguments = _parsed(sent) if isinstance(sent, str) else sent
    if arguments is None:
        return {}
    try:
        check_storable(arguments, "arguments")
    except UnstorableError as error:
        raise ToolError(f"Nothing was done: {error}.") from error
    if not isinstance(arguments, dict):
        raise _unreadable("not a JSON object", json.dumps(arguments))
    return arguments


def either(choices: Sequence[str]) -> str:
    """Return what can be chosen: create, update or delete."""
    *most, last = choices
    return f"{', '.join(most)} or {last}" if most else last


def mistakes(error: ValidationError, *, tagged: bool = False) -> str:
    """Return what is wrong with each argument; `tagged`: they are of a union with tags."""
    above = () if tagged else ("arguments",)
    found = [{**one, "loc": (*above, *one["loc"])} for one in list_errors(error)]
    named = invalid_request(found).members["errors"]
    return " ".join(f"{one['field']}: {one['detail']}" for one in named)


def _parsed(text: str) -> Any:
    if not text.strip():
        return None
    try:
        written = text.encode()
        check_values(written, _MAX_VALUES)
        return parse_json(written)
    except ValueError as error:
        raise _unreadable("not JSON", text) from error


def _unreadable(problem: str, text: str) -> ToolError:
    return ToolError(
        f"Nothing was done: the arguments are {problem} but {text[:_SHOWN]}. "
        "Send one JSON object that holds all of them."
    )
