"""Errors that clients can get; `http/problems.py` renders them as RFC 9457 documents."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self


class OperatorError(Exception):
    """Base of errors that the operator can fix; the message says how."""


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
