"""Errors a client can cause or meet; `problems.py` renders them as RFC 9457 documents."""

from typing import Any, ClassVar


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


class InvalidRequestError(AppError):
    """The request names something that cannot be; `field` says where."""

    status = 422
    code = "invalid_request"
    title = "Invalid request"

    def __init__(self, detail: str, *, field: str | None = None) -> None:
        super().__init__(detail)
        if field is not None:
            self.members["errors"] = [{"field": field, "detail": detail}]


class NotFoundError(AppError):
    """What the request names does not exist, or is out of the key's sight."""

    status = 404
    code = "not_found"
    title = "Not found"


class ConflictError(AppError):
    """The request cannot be carried out in the present state."""

    status = 409
    code = "conflict"
    title = "Conflict"
