"""Errors of single operations in a batch."""

from app.db.pages import PAGE_BYTES
from app.errors import AppError


class ResponseTooLargeError(AppError):
    """The results of earlier operations fill the response."""

    status = 422
    code = "response_too_large"
    title = "Response too large"

    def __init__(self) -> None:
        super().__init__(
            "was left out: the results before it fill the response "
            f"({PAGE_BYTES >> 20} MiB). Send it again in another batch."
        )
