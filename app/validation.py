"""Errors that pydantic finds in a request, as one error that names each field."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from app.errors import InvalidRequestError

_SHOWN_ERRORS = 100

_NOT_A_NUMBER = "This is not a number; send one, without quotes."
_MISSING = "The field is missing; add it."
_NO_OBJECT = "Send a JSON object, with the header Content-Type: application/json."

_SENTENCES = {
    "extra_forbidden": "There is no such field; check its spelling or leave it out.",
    "model_attributes_type": _NO_OBJECT,
    "model_type": _NO_OBJECT,
    "missing": _MISSING,
    "union_tag_not_found": _MISSING,
    "list_type": "This is not a JSON array; send one.",
    "dict_type": "This is not a JSON object; send one.",
    "string_type": "This is not a string; send one.",
    "bool_type": "This is neither true nor false; send one of them.",
    "bool_parsing": "This is neither true nor false; send one of them.",
    "float_type": _NOT_A_NUMBER,
    "float_parsing": _NOT_A_NUMBER,
    "int_type": _NOT_A_NUMBER,
    "int_parsing": _NOT_A_NUMBER,
}
"""Messages by the type of pydantic's error, if pydantic's own message says less."""


def list_errors(error: ValidationError, *, most: int = 2_000) -> list[Any]:
    """Return the errors that pydantic found; more than `most` are replaced by a single one.

    Listing an error takes longer than validating a value.
    """
    if (count := error.error_count()) > most:
        detail = f"There are {count:,} mistakes, too many to list"
        return [{"type": "too_many_errors", "loc": (), "msg": detail}]
    return error.errors(include_url=False, include_input=False)


def invalid_request(errors: Sequence[Mapping[str, Any]]) -> InvalidRequestError:
    """Return errors found by pydantic as one error that names each field, up to a maximum."""
    found = [{"field": _field(e), "detail": _sentence(e)} for e in errors[:_SHOWN_ERRORS]]
    rest = f" (and {len(errors) - 1:,} more)" if len(errors) > 1 else ""
    detail = f"{found[0]['field']}: {found[0]['detail']}{rest}"
    return InvalidRequestError(detail, errors=found)


def _field(error: Mapping[str, Any]) -> str:
    path = ""
    for part in error["loc"][1:] or error["loc"]:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def _sentence(error: Mapping[str, Any]) -> str:
    kind = error["type"]
    if kind in {"model_attributes_type", "model_type"} and len(error["loc"]) > 1:
        kind = "dict_type"  # a member of the body, not the body itself
    if kind == "missing" and tuple(error["loc"]) == ("body",):
        return "The body is missing; send a JSON object with the fields of this route."
    if kind == "union_tag_invalid":
        return f"The field is none of {error['ctx']['expected_tags']}; use one of them."
    return _SENTENCES.get(kind) or f"{str(error['msg']).removeprefix('Value error, ')}."
