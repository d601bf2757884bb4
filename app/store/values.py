"""Checking a client's JSON before it is stored."""

import json
import math
from typing import Any, TypeAlias

from app.schemas import UNSTORABLE, is_storable
from app.store.errors import InvalidValueError

MAX_DEPTH = 64
"""Objects and arrays within one another."""
MAX_DIGITS = 1_000
"""Of an integer: far below what jsonb holds and what Python prints."""
_FIRST_TOO_LONG: int = 10**MAX_DIGITS


def to_json(value: dict[str, Any], *, max_bytes: int, field: str = "value") -> str:
    """Return the value as JSON text that PostgreSQL can hold; raises InvalidValueError."""
    check_json(value, field)
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    size = len(text.encode())
    if size > max_bytes:
        raise InvalidValueError(
            f"{field} is {size:,} bytes of JSON; this server takes at most {max_bytes:,} "
            "(MEMORYD_MAX_VALUE_BYTES). Split it into several items.",
            field=field,
        )
    return text


def check_json(value: Any, field: str) -> None:
    """Raise InvalidValueError, naming the place, unless PostgreSQL's jsonb can hold the value."""
    if count_storable(value, max_depth=MAX_DEPTH) is None:
        _find_problem(value, field)


def count_storable(value: Any, *, max_depth: int) -> int | None:
    """Return the number of JSON values in a value; None if some part may not be storable.

    Goes level by level, several times as fast as a walk that keeps track of its path.
    """
    count, level = 0, [value]
    for depth in range(max_depth + 1):
        count += len(level)
        texts: list[str] = []
        inner: list[Any] = []
        for node in level:
            kind = type(node)
            if kind is str:
                texts.append(node)
            elif depth == max_depth and kind in _CONTAINERS:
                return None
            elif kind is dict:
                texts.extend(node)
                inner.extend(node.values())
            elif kind is list:
                inner.extend(node)
            elif not (node is None or kind is bool or _is_storable_number(node)):
                return None
        if not is_storable("".join(texts)):
            return None
        if not inner:
            return count
        level = inner
    return None


_CONTAINERS = (dict, list)


def is_short(number: int) -> bool:
    """Tell whether an integer has no more digits than are taken."""
    return -_FIRST_TOO_LONG < number < _FIRST_TOO_LONG


def _is_storable_number(node: Any) -> bool:
    if type(node) is float:
        return math.isfinite(node)
    return type(node) is int and is_short(node)


_Path: TypeAlias = "tuple[_Path, str] | None"


def _find_problem(value: Any, field: str) -> None:
    """Raise InvalidValueError that names the part which cannot be stored."""
    pending: list[tuple[Any, _Path, int]] = [(value, None, 1)]
    while pending:
        node, path, depth = pending.pop()
        if problem := _problem(node, depth):
            place = field + _written(path)
            raise InvalidValueError(f"{place} {problem}.", field=place)
        if isinstance(node, dict):
            pending.extend((child, (path, f".{key}"), depth + 1) for key, child in node.items())
        elif isinstance(node, list):
            pending.extend((child, (path, f"[{i}]"), depth + 1) for i, child in enumerate(node))


def _written(path: _Path) -> str:
    parts = []
    while path is not None:
        path, part = path
        parts.append(part)
    return "".join(reversed(parts))


def _problem(node: Any, depth: int) -> str | None:
    if depth > MAX_DEPTH and isinstance(node, dict | list):
        return f"is nested deeper than {MAX_DEPTH} levels of objects and arrays; flatten it"
    if isinstance(node, dict) and not is_storable("".join(node)):
        return "has a key with a NUL or an unpaired surrogate; leave it out"
    if isinstance(node, str) and (found := UNSTORABLE.search(node)):
        return f"contains U+{ord(found[0]):04X}, which cannot be stored; leave it out"
    if isinstance(node, float) and not math.isfinite(node):
        return f"is {node}, which JSON does not have; use null or a string"
    if isinstance(node, int) and not is_short(node):
        return f"is an integer of more than {MAX_DIGITS:,} digits; send it as a string"
    return None
