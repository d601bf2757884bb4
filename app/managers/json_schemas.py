"""JSON Schemas that clients send: what is taken of them, and how content is checked by them."""

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from jsonschema_rs import Draft202012Validator, RegexOptions, ValidationError, meta

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MAX_BYTES = 32_768

_LOCAL = re.compile(r"#/\$defs/([A-Za-z0-9_.-]+)")
"""A reference as it must be: the same to every reader, with nothing to decode."""

_FOREIGN = ("$id", "$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$vocabulary")
_SAME_PLACE = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas")
"""Keywords whose schemas are held against the very value that their own schema is held against."""

_MAX_STEPS = 10_000
"""Schemas that one value may be held against before a schema counts as running in circles."""


def check_object_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema; ValueError unless it is a self-contained JSON Schema of an object."""
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
    _check_references(schema)
    try:
        validator_of(schema)
    except ValidationError as error:
        raise ValueError(f"holds what cannot be checked: {_sentence(error)}") from error
    return schema


def validator_of(schema: dict[str, Any]) -> Draft202012Validator:
    """Return what checks content by a schema.

    No pattern takes more than linear time; what looks around or back is refused.
    """
    return _validator(json.dumps(schema))


def place_of(error: ValidationError) -> str:
    """Return where in the content an error is, such as `.stops[0].name`; empty for all of it."""
    return "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.instance_path
    )


@lru_cache(maxsize=256)
def _validator(text: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads(text), pattern_options=RegexOptions(), retriever=_refuse)


def _refuse(uri: str) -> None:
    raise ValueError(f"{uri} is elsewhere; schemas are never fetched")


def _sentence(error: ValidationError) -> str:
    place = place_of(error).removeprefix(".")
    return f"{place}: {_clipped(error.message)}" if place else _clipped(error.message)


def _clipped(message: str) -> str:
    return message if len(message) <= 200 else f"{message[:200]}…"


def _check_references(schema: dict[str, Any]) -> None:
    definitions = schema.get("$defs", {})
    for node in _objects(schema):
        for keyword in _FOREIGN:
            if isinstance(node.get(keyword), str):
                raise ValueError(  # noqa: TRY004  # for pydantic
                    f'holds "{keyword}"; use "$ref" with "#/$defs/…" alone'
                )
        reference = node.get("$ref")
        if isinstance(reference, str):
            local = _LOCAL.fullmatch(reference)
            if local is None or local[1] not in definitions:
                raise ValueError(
                    f'refers to "{reference}"; a "$ref" must be "#/$defs/" and the name of a '
                    'schema in "$defs" at the top of this one'
                )
    for start in (schema, *definitions.values()):
        for step, _ in enumerate(_held_against_one_value(start, definitions)):
            if step > _MAX_STEPS:
                raise ValueError("runs in circles: a schema is held against its own value again")


def _objects(schema: Any) -> Iterator[dict[str, Any]]:
    pending = [schema]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            yield node
            pending.extend(node.values())
        elif isinstance(node, list):
            pending.extend(node)


def _held_against_one_value(schema: Any, definitions: dict[str, Any]) -> Iterator[Any]:
    """Yield every schema that a value of `schema` is held against; endless where they circle."""
    pending = [schema]
    while pending:
        node = pending.pop()
        if not isinstance(node, dict):  # true and false are schemas, too
            continue
        yield node
        if isinstance(reference := node.get("$ref"), str):
            pending.append(definitions[reference.removeprefix("#/$defs/")])
        for keyword in _SAME_PLACE:
            inner = node.get(keyword, ())
            if keyword == "dependentSchemas":
                pending.extend(inner.values() if inner else ())
            else:
                pending.extend(inner if isinstance(inner, list | tuple) else [inner])
