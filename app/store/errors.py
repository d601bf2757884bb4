"""Errors of items."""

from typing import Self

from app.errors import ConflictError, InvalidRequestError, NotFoundError
from app.json_values import UnstorableError


class ItemNotFoundError(NotFoundError):
    """There is no such item, or it has expired."""

    code = "item_not_found"
    title = "Item not found"

    def __init__(self, key: str) -> None:
        super().__init__(
            f"There is no item {key!r} in this namespace. Put it first, "
            "or look for it with POST /v1/store/items/search."
        )


class VersionNotFoundError(NotFoundError):
    """The item never had that version."""

    code = "version_not_found"
    title = "Version not found"

    def __init__(self, key: str, version: int) -> None:
        super().__init__(
            f"The item {key!r} has no version {version}. "
            "GET /v1/store/items/versions lists the ones it has."
        )


class VersionHasNoValueError(ConflictError):
    """The version records an end, so there is nothing to restore."""

    code = "version_has_no_value"
    title = "Version has no value"

    def __init__(self, key: str, version: int, action: str) -> None:
        super().__init__(
            f"Version {version} of {key!r} records that the item ended ({action}). "
            "Restore an earlier version, one that has a value."
        )


class InvalidValueError(InvalidRequestError):
    """A value that cannot be stored."""

    code = "invalid_value"
    title = "Invalid value"

    @classmethod
    def of(cls, error: UnstorableError) -> Self:
        """Return the error that names the part which cannot be stored."""
        return cls(f"{error}.", field=error.place)
