"""Checking and editing the contents of memories."""

import copy
import json
from contextlib import suppress
from typing import Any

import jsonpatch
from jsonpointer import JsonPointerException
from jsonschema_rs import ValidationError

from app.managers.json_schemas import place_of, validator_of
from app.store.errors import InvalidValueError
from app.store.values import check_json

MAX_BYTES = 65_536
"""Of a content as JSON."""

_OPERATIONS = ("add", "replace", "remove")
_MAX_FAULTS = 5
_MAX_FAULT_CHARACTERS = 300


class BadContentError(Exception):
    """A content that cannot be kept; the message says why, for a model to correct it."""


def check_content(content: object, schema: dict[str, Any] | None) -> dict[str, Any]:
    """Return the content if it can be stored and fits its kind's schema, where there is one."""
    if not isinstance(content, dict):
        raise BadContentError(f"content must be an object, not {json.dumps(content)[:100]}")
    try:
        check_json({"content": content}, "memory")
    except InvalidValueError as error:
        raise BadContentError(str(error.detail).removesuffix(".")) from error
    size = len(json.dumps(content, ensure_ascii=False).encode())
    if size > MAX_BYTES:
        raise BadContentError(f"content is {size:,} bytes of JSON; at most {MAX_BYTES:,} are kept")
    if schema is not None and (faults := _faults(content, schema)):
        raise BadContentError("content does not fit its kind: " + "; ".join(faults))
    return content


def unquoted(argument: object) -> object:
    """Return what an argument says; some models write what is nested as a text of JSON."""
    if isinstance(argument, str):
        with suppress(ValueError, RecursionError):
            return json.loads(argument)
    return argument


def edited(content: dict[str, Any], edits: object) -> Any:
    """Return the content after a JSON Patch, which may make anything of it."""
    if not isinstance(edits, list):
        raise BadContentError("edits must be a list of operations")
    document: Any = content
    for number, edit in enumerate(edits, start=1):
        if not isinstance(edit, dict) or edit.get("op") not in _OPERATIONS:
            raise BadContentError(f"edit {number}: op must be one of {', '.join(_OPERATIONS)}")
        try:
            # A copy, because later edits may change the value in place.
            document = jsonpatch.apply_patch(document, [copy.deepcopy(edit)])
        except (jsonpatch.JsonPatchException, JsonPointerException, TypeError) as error:
            raise BadContentError(
                f"edit {number} ({edit['op']} {edit.get('path')!r}) does not apply: {error}"
            ) from error
    return document


def _faults(content: dict[str, Any], schema: dict[str, Any]) -> list[str]:
    errors = sorted(validator_of(schema).iter_errors(content), key=place_of)
    return [_fault(error) for error in errors[:_MAX_FAULTS]]


def _fault(error: ValidationError) -> str:
    return f"content{place_of(error)}: {_clipped(error.message)}"


def _clipped(message: str) -> str:
    # The middle goes: such messages begin with what was found and end with what is wrong.
    if len(message) <= _MAX_FAULT_CHARACTERS:
        return message
    half = _MAX_FAULT_CHARACTERS // 2
    return f"{message[:half]} … {message[-half:]}"
