"""What can go wrong with a search."""

from app.errors import InvalidRequestError


class InvalidCursorError(InvalidRequestError):
    """A cursor is not what a page of the search came with."""

    code = "invalid_cursor"
    title = "Invalid cursor"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, field="cursor")
