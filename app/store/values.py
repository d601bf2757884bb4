"""The value of an item: checked, and turned into the text that is stored."""

from typing import Any

from app.json_values import JsonObject, JsonText, UnstorableError, check_storable, to_json_text
from app.store.errors import InvalidValueError


def to_json(value: JsonObject, *, max_bytes: int, field: str = "value") -> JsonText:
    """Return the value as JSON text that PostgreSQL can hold; raises InvalidValueError."""
    check_json(value, field)
    text = to_json_text(value)
    size = len(text.encode())
    if size > max_bytes:
        raise InvalidValueError(
            f"{field} is {size:,} bytes of JSON; this server takes at most {max_bytes:,} "
            "(MEMORYD_MAX_VALUE_BYTES). Split it into several items.",
            field=field,
        )
    return text


def check_json(value: Any, field: str) -> None:
    """Raise InvalidValueError, naming the place, unless PostgreSQL can hold the value."""
    try:
        check_storable(value, field)
    except UnstorableError as error:
        raise InvalidValueError(f"{error}.", field=error.place) from error
