"""Errors of index paths."""

from app.errors import InvalidRequestError


class InvalidIndexPathError(InvalidRequestError):
    """A path in `index` that cannot be read."""

    code = "invalid_index_path"
    title = "Invalid index path"
