"""Schemas in the part of JSON Schema that every provider of models accepts.

Gemini knows neither lists of types nor references, and enums only of texts; llama.cpp needs a type
in every schema. A schema is rewritten so that the same values fit it. Parts that have no such form
are left as they are.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import combinations
from typing import Any

from app.json_values import JsonObject

MAX_NODES = 1_000
"""Maximum sub-schemas of a rewritten schema."""

MAX_BYTES = 65_536
"""Maximum size of a schema together with the copies of the parts it refers to, as JSON."""

MAX_RANGES = 10
"""Maximum ranges in place of an enum of numbers."""

_KEPT = 32
_MAX_COMPARED = 20

_MAPS = ("properties", "patternProperties", "dependentSchemas")
_LISTS = ("prefixItems", "allOf", "anyOf", "oneOf")
_SINGLE = (
    *("items", "additionalProperties", "contains", "propertyNames"),
    *("not", "if", "then", "else"),
)
_EXACT = {"oneOf", "not", "if"}
"""Keywords that let more values pass if their sub-schemas let fewer pass."""

_LEFT_OUT = {"$schema", "$defs", "$comment"}
_ANNOTATIONS = {
    *("title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"),
}
_OF_EVERY_TYPE = {"allOf", "anyOf", "oneOf", "not", "if", "then", "else"}

_KEYWORDS_OF: dict[str, set[str]] = {
    "string": {
        *("minLength", "maxLength", "pattern"),
        *("format", "contentEncoding", "contentMediaType", "contentSchema"),
    },
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
    "boolean": set(),
    "null": set(),
    "object": {
        *("properties", "patternProperties", "additionalProperties", "propertyNames", "required"),
        *("minProperties", "maxProperties", "dependentRequired", "dependentSchemas"),
    },
    "array": {
        *("items", "prefixItems", "minItems", "maxItems", "uniqueItems"),
        *("contains", "minContains", "maxContains"),
    },
}
"""Each type, and the keywords that say nothing of values of other types."""

_BELONG_TOGETHER = (
    {"properties", "patternProperties", "additionalProperties"},
    {"items", "prefixItems"},
    {"if", "then", "else"},
    {"contains", "minContains", "maxContains"},
)
"""Keywords whose meaning depends on each other."""

_ANYTHING: JsonObject = {
    "anyOf": [
        *({"type": name} for name in ("string", "number", "boolean", "null", "object")),
        {"type": "array", "items": {}},
    ]
}


def portable_schema(schema: JsonObject) -> JsonObject:
    """Return a schema that the same values fit; the schema itself if it refers to itself.

    It is also left as it is if it would become too large. A schema without a type, all of whose
    keywords are of one type, is read as a schema of that type.
    """
    return _rewrite(json.dumps(schema))


@lru_cache(_KEPT)
def _rewrite(text: str) -> JsonObject:
    schema: JsonObject = json.loads(text)
    try:
        written: JsonObject = _Rewriter(schema).rewrite(schema)
    except _NotPortableError:
        return schema
    return written


class _NotPortableError(Exception):
    """The schema refers to itself, or would become too large."""


class _Rewriter:
    def __init__(self, schema: JsonObject) -> None:
        self._definitions: JsonObject = schema.get("$defs", {})
        self._open: list[str] = []  # names of the definitions that are being copied
        self._infers_types = True
        self._nodes = 0
        self._bytes = 0
        self._spend(size=_size(schema))

    def rewrite(self, schema: Any) -> Any:
        """Return the rewritten form of a schema."""
        if schema is True:
            schema = {}
        if not isinstance(schema, dict):
            return schema
        self._spend(nodes=1)
        schema = {name: part for name, part in schema.items() if name not in _LEFT_OUT}
        if "$ref" in schema:
            with self._definition(schema.pop("$ref")) as part:
                return self._rewrite_both(part, schema)
        if len(schema.get("allOf", ())) == 1:
            (part,) = schema.pop("allOf")
            return self._rewrite_both(part, schema)
        return self._rewrite_node(schema)

    def _spend(self, *, nodes: int = 0, size: int = 0) -> None:
        self._nodes += nodes
        self._bytes += size
        if self._nodes > MAX_NODES or self._bytes > MAX_BYTES:
            raise _NotPortableError

    @contextmanager
    def _definition(self, reference: str) -> Iterator[Any]:
        name = reference.removeprefix("#/$defs/")
        if name in self._open or name not in self._definitions:
            raise _NotPortableError
        self._spend(size=_size(self._definitions[name]))
        self._open.append(name)
        yield self._definitions[name]
        self._open.pop()

    def _rewrite_both(self, part: Any, rest: JsonObject) -> Any:
        """Return the schema of the values that fit both; the annotations of `rest` prevail."""
        if isinstance(part, dict) and not _interact(part, rest):
            return self.rewrite({**part, **rest})
        if not _without_annotations(rest):
            return self.rewrite(part)
        written = self._rewrite_node(rest)
        return {**written, "allOf": [self.rewrite(part), *written.get("allOf", ())]}

    def _rewrite_node(self, schema: JsonObject) -> JsonObject:
        before, node = self._infers_types, {}
        for name, part in schema.items():
            self._infers_types = before and name not in _EXACT
            node[name] = self._rewrite_parts(name, part)
        self._infers_types = before
        if node.get("additionalProperties", False) in (True, {}):
            del node["additionalProperties"]
        if "const" in node and "enum" not in node:
            node["enum"] = [node.pop("const")]
        if not node.keys().isdisjoint(_OF_EVERY_TYPE):
            return _rewrite_logic(node)
        if node.keys().isdisjoint({"type", "enum"}) and not self._infers_types:
            return node
        branches = _branches_of(node)
        self._spend(nodes=len(branches) - 1)
        return _any_of([_complete(branch) for branch in branches], node)

    def _rewrite_parts(self, name: str, part: Any) -> Any:
        if name in _MAPS:
            return {key: self.rewrite(inner) for key, inner in part.items()}
        if name in _LISTS:
            return [self.rewrite(inner) for inner in part]
        is_schema = name in _SINGLE and not (name == "additionalProperties" and part in (True, {}))
        return self.rewrite(part) if is_schema else part


def _size(schema: Any) -> int:
    return len(json.dumps(schema, ensure_ascii=False).encode(errors="replace"))


def _without_annotations(node: JsonObject) -> JsonObject:
    return {name: part for name, part in node.items() if name not in _ANNOTATIONS}


def _interact(part: JsonObject, rest: JsonObject) -> bool:
    """Return whether two schemas mean something else in one object than each by itself."""
    shared = _without_annotations(part).keys() & rest.keys()
    return any(part[name] != rest[name] for name in shared) or any(
        not group.isdisjoint(part) and not group.isdisjoint(rest) for group in _BELONG_TOGETHER
    )


def _rewrite_logic(node: JsonObject) -> JsonObject:
    if "oneOf" in node and "anyOf" not in node and _are_disjoint(node["oneOf"]):
        node["anyOf"] = node.pop("oneOf")
    if _without_annotations(node).keys() == {"anyOf"}:
        branches: list[Any] = []
        for branch in node["anyOf"]:
            is_nested = isinstance(branch, dict) and branch.keys() == {"anyOf"}
            branches += branch["anyOf"] if is_nested else [branch]
        return _any_of(branches, node)
    names = node.get("type")
    if isinstance(names, list) and len(names) == 1:
        node["type"] = names[0]
    return node


def _any_of(branches: Sequence[Any], annotated: JsonObject) -> JsonObject:
    """Return the schema of the values that fit a branch.

    Gemini wants nothing else next to `anyOf`, so annotations move into the first branch.
    """
    notes = {name: part for name, part in annotated.items() if name in _ANNOTATIONS}
    schemas = [n for n, branch in enumerate(branches) if isinstance(branch, dict)]
    if len(branches) == len(schemas) == 1:
        order = dict.fromkeys(name for name in annotated if name in {*notes, *branches[0]})
        return {**order, **branches[0], **notes}
    if not schemas:
        return {**notes, "anyOf": list(branches)}
    first = next((n for n in schemas if branches[n].get("type") != "null"), schemas[0])
    own = branches[first]
    texts = dict.fromkeys(part["description"] for part in (notes, own) if "description" in part)
    described = {"description": " ".join(texts)} if texts else {}
    # A default of the whole may not fit the branch.
    notes.pop("default", None)
    return {"anyOf": [*branches[:first], {**own, **notes, **described}, *branches[first + 1 :]]}


def _branches_of(node: JsonObject) -> list[JsonObject]:
    """Return schemas of one type each; a value fits the node if it fits one of them."""
    if "enum" not in node:
        return [_of_type(node, name) for name in _types_of(node)]
    declared = node.get("type", list(_KEYWORDS_OF))
    declared = [declared] if isinstance(declared, str) else declared
    groups: dict[str, list[Any]] = {}
    for value in node["enum"]:
        name = _type_of(value)
        names = {"integer", "number"} if name == "integer" else {name}
        if fitting := next((name for name in declared if name in names), None):
            groups.setdefault(fitting, []).append(value)
    branches = [
        branch
        for name, values in groups.items()
        for branch in _enumerate(_of_type(node, name), values)
    ]
    return branches or [_without_annotations(node)]


def _types_of(node: JsonObject) -> Sequence[str]:
    declared = node.get("type")
    if declared is None:
        named = [name for name, own in _KEYWORDS_OF.items() if not own.isdisjoint(node)]
        return named if len(named) == 1 else list(_KEYWORDS_OF)
    if isinstance(declared, str):
        return [declared]
    return [name for name in declared if name != "integer" or "number" not in declared]


def _of_type(node: JsonObject, name: str) -> JsonObject:
    family = _KEYWORDS_OF["number" if name == "integer" else name]
    return {"type": name, **{keyword: part for keyword, part in node.items() if keyword in family}}


def _type_of(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        is_whole = isinstance(value, int) or value.is_integer()
        return "integer" if is_whole else "number"
    names: dict[type, str] = {str: "string", list: "array", dict: "object", bool: "boolean"}
    return names.get(type(value), "null")


def _enumerate(typed: JsonObject, values: list[Any]) -> list[JsonObject]:
    """Return schemas of some values of a type, in which only texts are enumerated, if possible."""
    name = typed["type"]
    if name == "null" or (name == "boolean" and len(set(values)) == 2):
        return [typed]
    is_bare = len(typed) == 1  # no other keyword excludes some of the values
    if name == "string" and "" in values and is_bare:
        named = [value for value in values if value]
        return [*([{**typed, "enum": named}] if named else []), {**typed, "maxLength": 0}]
    if name in {"integer", "number"} and is_bare and (ranges := _ranges(values)):
        return [
            {
                "type": "integer" if isinstance(least, int) else name,
                "minimum": least,
                "maximum": most,
            }
            for least, most in ranges
        ]
    return [{**typed, "enum": values}]


def _ranges(values: Sequence[float]) -> list[tuple[float, float]]:
    """Return the ranges that hold exactly some numbers; none if there are too many.

    Ranges of whole numbers hold whole numbers only.
    """
    ranges: list[tuple[float, float]] = []
    for value in sorted({int(v) if _type_of(v) == "integer" else v for v in values}):
        last = ranges[-1] if ranges else None
        if last and isinstance(value, int) and isinstance(last[1], int) and value == last[1] + 1:
            ranges[-1] = last[0], value
        else:
            ranges.append((value, value))
    return ranges if len(ranges) <= MAX_RANGES else []


def _complete(branch: JsonObject) -> JsonObject:
    """Return a branch with inclusive bounds of whole numbers, and with a schema of list items."""
    if branch.get("type") == "array" and branch.keys().isdisjoint({"items", "prefixItems", "enum"}):
        return {**branch, "items": _ANYTHING}
    if branch.get("type") != "integer":
        return branch
    bounds = {"exclusiveMinimum": ("minimum", 1), "exclusiveMaximum": ("maximum", -1)}
    for name, (inclusive, step) in bounds.items():
        if isinstance(branch.get(name), int) and inclusive not in branch:
            bound = branch[name] + step
            branch = {n: part for n, part in branch.items() if n != name} | {inclusive: bound}
    return branch


def _are_disjoint(branches: Sequence[Any]) -> bool:
    """Return whether no value can fit two of the schemas: by its type, or by a tag."""
    if len(branches) > _MAX_COMPARED:
        return False
    return all(
        isinstance(a, dict) and isinstance(b, dict) and _differ(a, b)
        for a, b in combinations(branches, 2)
    )


def _differ(a: JsonObject, b: JsonObject) -> bool:
    names = [node.get("type") for node in (a, b)]
    if not all(isinstance(name, str) for name in names) or {*names} == {"integer", "number"}:
        return False
    return names[0] != names[1] or (names[0] == "object" and _have_different_tags(a, b))


def _have_different_tags(a: JsonObject, b: JsonObject) -> bool:
    for name in set(a.get("required", ())) & set(b.get("required", ())):
        tags = [_tags(node.get("properties", {}).get(name)) for node in (a, b)]
        if tags[0] and tags[1] and tags[0].isdisjoint(tags[1]):
            return True
    return False


def _tags(schema: Any) -> set[str]:
    is_text = isinstance(schema, dict) and schema.get("type") == "string"
    return set(schema.get("enum", ())) if is_text else set()
