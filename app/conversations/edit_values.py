"""Values of edits, which models write as texts: a text as it is, and anything else as JSON."""

import json
from contextlib import suppress
from typing import Any

from app.conversations.memories import MAX_CONTENT_BYTES, MAX_EDITS
from app.conversations.schema_assertions import Budget, TooManyChecksError
from app.conversations.schema_validator import Validator, validator_of
from app.json_values import MAX_DEPTH, JsonObject, count_storable, is_deeper, is_storable_text

_ABSENT = object()


def read_edit_values(edits: object, content: JsonObject, schema: JsonObject | None) -> object:
    """Return the edits of a content with the values that their texts mean.

    The schema decides: a text that fits stays a text, and JSON that fits in its place is parsed.
    Values that are no texts stay as they are, and so does everything that is not a valid edit.
    """
    if not isinstance(edits, list) or len(edits) > MAX_EDITS:
        return edits
    reader = _Reader(content, schema)
    return [reader.read(edit) if isinstance(edit, dict) else edit for edit in edits]


class _Reader:
    def __init__(self, content: JsonObject, schema: JsonObject | None) -> None:
        self._content = content
        self._validator: Validator | None = None if schema is None else validator_of(schema)
        self._budget = Budget()

    def read(self, edit: JsonObject) -> JsonObject:
        text, path = edit.get("value"), edit.get("path")
        if not isinstance(text, str) or not isinstance(path, str):
            return edit
        value = _parse(text)
        if value is _ABSENT or not is_storable_text(path) or path.count("/") > MAX_DEPTH:
            return edit
        steps = [step.replace("~1", "/").replace("~0", "~") for step in path.split("/")[1:]]
        return {**edit, "value": value} if self._means(value, text, steps) else edit

    def _means(self, value: Any, text: str, steps: list[str]) -> bool:
        """Return whether a text at a place means the value that it is the JSON of."""
        try:
            fits, is_meant = self._fits(text, steps), self._fits(value, steps)
        except TooManyChecksError:
            return False
        if fits != is_meant:
            return is_meant
        # Everything may be there, or nothing: what is there now shows the type.
        now = _find(self._content, steps)
        return isinstance(value, dict | list) if now is _ABSENT else not isinstance(now, str)

    def _fits(self, value: Any, steps: list[str]) -> bool:
        return self._validator is None or self._validator.is_valid_at(steps, value, self._budget)


def _parse(text: str) -> Any:
    """Return the value of JSON that can be stored and is no text."""
    if len(text) > MAX_CONTENT_BYTES or not is_storable_text(text):
        return _ABSENT
    with suppress(ValueError, RecursionError):
        value = json.loads(text)
        is_good = not isinstance(value, str) and not is_deeper(value, MAX_DEPTH)
        return value if is_good and count_storable(value) is not None else _ABSENT
    return _ABSENT


def _find(content: Any, steps: list[str]) -> Any:
    for step in steps:
        if isinstance(content, dict) and step in content:
            content = content[step]
        elif isinstance(content, list) and step.isascii() and step.isdigit():
            place = int(step[:9])
            content = content[place] if place < len(content) else _ABSENT
        else:
            return _ABSENT
    return content
