"""Reading the arguments that a model sends, and describing its mistakes to it."""

import json
from collections.abc import Sequence

from pydantic import ValidationError

from app.errors import invalid_request, list_errors
from app.json_values import (
    JsonObject,
    UnstorableError,
    check_storable,
    check_values,
    parse_json,
)
from app.tools.errors import ToolError

_MAX_VALUES = 50_000

_SHOWN_CHARACTERS = 200
"""Maximum characters of unreadable arguments in a message."""


def read_arguments(sent: object) -> JsonObject:
    """Return a model's arguments, which it may omit if it has none; raises ToolError."""
    arguments = _parse(sent) if isinstance(sent, str) else sent
    if arguments is None:
        return {}
    try:
        check_storable(arguments, "arguments")
    except UnstorableError as error:
        raise ToolError(f"Nothing was done: {error}.") from error
    if not isinstance(arguments, dict):
        raise _unreadable("not a JSON object", json.dumps(arguments))
    return arguments


def any_of(choices: Sequence[str]) -> str:
    """Return choices as a phrase, such as "create, update or delete"."""
    *most, last = choices
    return f"{', '.join(most)} or {last}" if most else last


def describe_mistakes(error: ValidationError, *, is_tagged: bool = False) -> str:
    """Return the problem with each argument; `is_tagged`: they are validated as a tagged union."""
    above = () if is_tagged else ("arguments",)
    found = [{**one, "loc": (*above, *one["loc"])} for one in list_errors(error)]
    named = invalid_request(found).members["errors"]
    return " ".join(f"{one['field']}: {one['detail']}" for one in named)


def _parse(text: str) -> object:
    if not text.strip():
        return None
    try:
        encoded = text.encode()
        check_values(encoded, _MAX_VALUES)
        return parse_json(encoded)
    except ValueError as error:
        raise _unreadable("not JSON", text) from error


def _unreadable(problem: str, text: str) -> ToolError:
    return ToolError(
        f"Nothing was done: the arguments are {problem} but {text[:_SHOWN_CHARACTERS]}. "
        "Send one JSON object that holds all of them."
    )
