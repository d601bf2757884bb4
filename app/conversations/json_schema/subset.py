"""The subset of JSON Schema that is accepted from clients."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from jsonschema_rs import ValidationError, meta

from app.conversations.json_schema.validator import validator_of

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MAX_BYTES = 32_768
MAX_BYTES_TOGETHER = 65_536
MAX_PATTERNS_TOGETHER = 2_000


def check_object_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema; raises ValueError unless it is an accepted schema of an object."""
    if (size := len(json.dumps(schema, ensure_ascii=False).encode())) > MAX_BYTES:
        raise ValueError(f"is {size:,} bytes of JSON; use at most {MAX_BYTES:,}")
    if schema.get("$schema", DIALECT) != DIALECT:
        raise ValueError(f'is of another dialect; leave "$schema" out or make it "{DIALECT}"')
    if schema.get("type") != "object":
        raise ValueError('does not describe an object; give it "type": "object"')
    try:
        meta.validate({**schema, "$schema": DIALECT})
    except ValidationError as error:
        raise ValueError(f"is no JSON Schema (draft 2020-12): {_sentence(error)}") from error
    validator_of(schema)
    return schema


def check_together(schemas: Iterable[Any]) -> None:
    """Raise ValueError if the schemas of one request would take too long to compile."""
    size = characters = 0
    for schema in schemas:
        size += len(json.dumps(schema, ensure_ascii=False).encode(errors="replace"))
        characters += sum(map(len, _patterns_in(schema)))
    if size > MAX_BYTES_TOGETHER:
        raise ValueError(
            f"hold schemas of {size:,} bytes of JSON; use at most {MAX_BYTES_TOGETHER:,} together"
        )
    if characters > MAX_PATTERNS_TOGETHER:
        raise ValueError(
            f"hold patterns of {characters:,} characters; use at most {MAX_PATTERNS_TOGETHER:,}"
        )


def _patterns_in(schema: Any) -> Iterator[str]:
    """Yield the patterns in a schema (a property named `pattern` is no text)."""
    pending = [schema]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            if isinstance(pattern := node.get("pattern"), str):
                yield pattern
            if isinstance(patterns := node.get("patternProperties"), dict):
                yield from patterns
            pending.extend(node.values())
        elif isinstance(node, list):
            pending.extend(node)


def _sentence(error: ValidationError) -> str:
    place = "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.instance_path
    ).removeprefix(".")
    return f"{place}: {_clip(error.message)}" if place else _clip(error.message)


def _clip(message: str) -> str:
    return message if len(message) <= 200 else f"{message[:200]}…"
