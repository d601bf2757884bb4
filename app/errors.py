"""Errors that clients can get (`http/problems.py` renders them), and those of pydantic as one."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

from pydantic import ValidationError


class OperatorError(Exception):
    """Base of errors that the operator can fix; the message says how."""


class SettingError(OperatorError):
    """A setting has a value that cannot work; the message names it and says what it takes."""


class AppError(Exception):
    """Base of every error that has an answer for the client.

    Subclasses set `status`, `code` and `title` and compose `detail` in their constructor,
    so that one mistake is worded one way everywhere.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str, **members: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.members = members
        self.headers: dict[str, str] = {}

    def within(self, place: str) -> Self:
        """Attribute the error to a part of the request, such as `operations[3]`."""
        self.detail = f"{place}: {self.detail}"
        for error in self.members.get("errors", ()):
            error["field"] = f"{place}.{error['field']}"
        return self


class InvalidRequestError(AppError):
    """The request is invalid; `field` names the part at fault."""

    status = 422
    code = "invalid_request"
    title = "Invalid request"

    def __init__(
        self,
        detail: str,
        *,
        field: str | None = None,
        errors: Sequence[Mapping[str, str]] = (),
    ) -> None:
        super().__init__(detail)
        found = [dict(error) for error in errors]
        if field is not None:
            found.append({"field": field, "detail": detail})
        if found:
            self.members["errors"] = found


class BodyTooLargeError(AppError):
    """The body is larger than its route takes."""

    status = 413
    code = "body_too_large"
    title = "Body too large"

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"The body is larger than the {max_bytes:,} bytes that this route takes.")


class NotFoundError(AppError):
    """The named resource does not exist, or the key may not see it."""

    status = 404
    code = "not_found"
    title = "Not found"


class ConflictError(AppError):
    """The request cannot be carried out in the present state."""

    status = 409
    code = "conflict"
    title = "Conflict"


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
