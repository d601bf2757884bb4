"""Checking a client's JSON before it is stored."""

import json
import math
from typing import Any

from app.schemas import UNSTORABLE
from app.store.errors import InvalidValueError

MAX_DEPTH = 64
MAX_INTEGER_BITS = 3300
"""About 1,000 digits: far below what jsonb holds and what Python prints."""


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
    pending = [(value, field, 1)]
    while pending:
        node, path, depth = pending.pop()
        if problem := _problem(node, depth):
            raise InvalidValueError(f"{path} {problem}.", field=path)
        if isinstance(node, dict):
            for key, child in node.items():
                if UNSTORABLE.search(key):
                    raise InvalidValueError(
                        f"{path} has a key with a NUL or an unpaired surrogate; leave it out.",
                        field=path,
                    )
                pending.append((child, f"{path}.{key}", depth + 1))
        elif isinstance(node, list):
            pending.extend((child, f"{path}[{i}]", depth + 1) for i, child in enumerate(node))


def _problem(node: Any, depth: int) -> str | None:
    if depth > MAX_DEPTH:
        return f"is nested deeper than {MAX_DEPTH} levels; flatten it"
    if isinstance(node, str) and (found := UNSTORABLE.search(node)):
        return f"contains U+{ord(found[0]):04X}, which cannot be stored; leave it out"
    if isinstance(node, float) and not math.isfinite(node):
        return f"is {node}, which JSON does not have; use null or a string"
    if isinstance(node, int) and node.bit_length() > MAX_INTEGER_BITS:
        return "is an integer of more than 1,000 digits; send it as a string"
    return None
