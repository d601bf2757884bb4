"""Compiled schemas: graphs of nodes, each of which checks one value."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.conversations.schema_assertions import (
    ASSERTIONS,
    Assertion,
    Pattern,
    PatternSet,
    assertions_of,
    render,
)

MAX_NODES = 2_000

_ANNOTATIONS = {
    *("$schema", "$defs", "$comment", "title", "description", "default", "examples"),
    *("deprecated", "readOnly", "writeOnly", "format"),
    *("contentEncoding", "contentMediaType", "contentSchema"),
}
_LEAF_KEYWORDS = ASSERTIONS | _ANNOTATIONS

_REFERENCE = re.compile(r"#/\$defs/([A-Za-z0-9_.-]+)")
"""The only form of reference: every reader understands it alike, with nothing to decode."""

_REFUSED = {
    **dict.fromkeys(
        ("$id", "$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$vocabulary"),
        'use "$ref" with "#/$defs/…" alone',
    ),
    "unevaluatedProperties": 'use "additionalProperties" instead',
    "unevaluatedItems": 'use "items" instead',
}
_KEYWORDS_PER_CHECK = 8

_BYTES_PER_BYTE = 64
"""Memory of a compiled schema per byte of its JSON; 60 were measured."""


@dataclass(eq=False, slots=True)
class Contains:
    """Bounds on the number of list items that fit a schema."""

    node: "Node"
    least: float
    most: float | None


@dataclass(eq=False, slots=True)
class Node:
    """One schema. A cycle of nodes always passes through a member or an item of a value."""

    weight: int = 1
    is_leaf: bool = True
    has_logic: bool = False
    assertions: Sequence[Assertion] = ()
    required: Sequence[str] = ()
    # Applied to the value itself.
    all_of: Sequence["Node"] = ()
    any_of: Sequence["Node"] = ()
    one_of: Sequence["Node"] = ()
    not_: "Node | None" = None
    if_: "Node | None" = None
    then: "Node | None" = None
    else_: "Node | None" = None
    dependents: Sequence[tuple[str, "Node"]] = ()
    # Applied to its members or items.
    properties: Mapping[str, "Node"] | None = None
    patterns: Sequence[tuple[Pattern, "Node"]] = ()
    additional: "Node | None" = None
    is_closed: bool = False
    names: "Node | None" = None
    prefix: Sequence["Node"] = ()
    items: "Node | None" = None
    contains: Contains | None = None

    def of_same_value(self) -> Iterator["Node"]:
        """Yield the nodes that are applied to the same value as this one."""
        yield from (*self.all_of, *self.any_of, *self.one_of)
        yield from (node for node in (self.not_, self.if_, self.then, self.else_) if node)
        yield from (node for _, node in self.dependents)


class Compiler:
    """Compiles one schema that is valid under the meta-schema.

    Raises ValueError for keywords and references that are not accepted, for patterns that are too
    large, and for too many sub-schemas.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        self._definitions = {name: Node() for name in schema.get("$defs", {})}
        self._patterns = PatternSet()
        self._nodes: list[Node] = []
        self.root = self._compile(schema)
        for name, node in self._definitions.items():
            self._fill(node, schema["$defs"][name])

    @property
    def pattern_bytes(self) -> int:
        """The most memory that the patterns take."""
        return self._patterns.memory

    @property
    def nodes(self) -> Sequence[Node]:
        """The nodes that check anything."""
        return self._nodes

    def _compile(self, schema: Any) -> Node:
        keywords = schema.keys() - _ANNOTATIONS if isinstance(schema, dict) else ()
        if keywords == {"$ref"}:
            return self._target(schema)
        node = Node()
        if schema is False or keywords:
            self._fill(node, schema)
        return node

    def _each(self, schemas: Sequence[Any]) -> tuple[Node, ...]:
        return tuple(self._compile(schema) for schema in schemas)

    def _some(self, schema: Mapping[str, Any], keyword: str) -> Node | None:
        return self._compile(schema[keyword]) if keyword in schema else None

    def _named(self, schemas: Mapping[str, Any]) -> tuple[tuple[str, Node], ...]:
        return tuple((name, self._compile(schema)) for name, schema in schemas.items())

    def _target(self, schema: Mapping[str, Any]) -> Node:
        local = _REFERENCE.fullmatch(schema["$ref"])
        if local is None or local[1] not in self._definitions:
            raise ValueError(
                f'refers to "{schema["$ref"]}"; a "$ref" must be "#/$defs/" and the name of a '
                'schema in "$defs" at the top of this one'
            )
        return self._definitions[local[1]]

    def _fill(self, node: Node, schema: Any) -> None:
        self._nodes.append(node)
        if len(self._nodes) > MAX_NODES:
            raise ValueError(f"has more than {MAX_NODES:,} sub-schemas")
        if isinstance(schema, bool):
            node.assertions = () if schema else (_NEVER,)
            return
        for keyword in _REFUSED.keys() & schema.keys():
            raise ValueError(f'holds "{keyword}"; {_REFUSED[keyword]}')
        node.assertions = assertions_of(schema, self._patterns)
        node.required = tuple(schema.get("required", ()))
        self._fill_logic(node, schema)
        self._fill_members(node, schema)
        self._fill_items(node, schema)
        node.is_leaf = schema.keys() <= _LEAF_KEYWORDS
        node.has_logic = not schema.keys().isdisjoint({"anyOf", "oneOf", "not"})
        names = len(node.required) + sum(len(part.required) for _, part in node.dependents)
        node.weight = 1 + (len(schema) + names) // _KEYWORDS_PER_CHECK

    def _fill_logic(self, node: Node, schema: Mapping[str, Any]) -> None:
        referred = (self._target(schema),) if "$ref" in schema else ()
        node.all_of = referred + self._each(schema.get("allOf", ()))
        node.any_of = self._each(schema.get("anyOf", ()))
        node.one_of = self._each(schema.get("oneOf", ()))
        node.not_ = self._some(schema, "not")
        node.if_ = self._some(schema, "if")
        node.then = self._some(schema, "then")
        node.else_ = self._some(schema, "else")
        required = schema.get("dependentRequired", {})
        node.dependents = self._named(schema.get("dependentSchemas", {})) + self._named(
            {name: {"required": others} for name, others in required.items()}
        )

    def _fill_members(self, node: Node, schema: Mapping[str, Any]) -> None:
        if "properties" in schema:
            node.properties = dict(self._named(schema["properties"]))
        patterns = self._named(schema.get("patternProperties", {}))
        node.patterns = tuple((self._patterns.get(source), part) for source, part in patterns)
        node.is_closed = schema.get("additionalProperties") is False
        node.additional = None if node.is_closed else self._some(schema, "additionalProperties")
        node.names = self._some(schema, "propertyNames")

    def _fill_items(self, node: Node, schema: Mapping[str, Any]) -> None:
        node.prefix = self._each(schema.get("prefixItems", ()))
        node.items = self._some(schema, "items")
        if "contains" in schema:
            node.contains = Contains(
                self._compile(schema["contains"]),
                schema.get("minContains", 1),
                schema.get("maxContains"),
            )


_NEVER = Assertion(lambda *_: False, lambda value: f"False schema does not allow {render(value)}")


def compile_schema(text: str) -> tuple[Node, int]:
    """Return the root node of an accepted schema, and the most memory that its nodes take."""
    compiler = Compiler(json.loads(text))
    _check_cycles(compiler)
    return compiler.root, _BYTES_PER_BYTE * len(text) + compiler.pattern_bytes


def _check_cycles(compiler: Compiler) -> None:
    """Raise ValueError if checking a value by a schema would start the same check again."""
    done: set[int] = set()
    for start in compiler.nodes:
        path: list[tuple[Node, Iterator[Node]]] = [(start, start.of_same_value())]
        open_ = {id(start)}
        while path:
            node, rest = path[-1]
            following = next((inner for inner in rest if id(inner) not in done), None)
            if following is None:
                done.add(id(node))
                open_.discard(id(node))
                path.pop()
            elif id(following) in open_:
                raise ValueError("runs in circles: a schema is held against its own value again")
            else:
                open_.add(id(following))
                path.append((following, following.of_same_value()))
