"""Checks of schemas, and of content against a compiled schema.

Of JSON Schema, clients may use the subset that `check_object_schema` accepts.

A node is applied to a value at most once, however often the schema refers to it, and the checks
are counted, so no combination of schema and content takes longer than its budget.
"""

import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from threading import Lock
from typing import Any

from jsonschema_rs import ValidationError, meta

from app.conversations.schema_assertions import Budget, TooManyChecksError, render
from app.conversations.schema_compiler import Contains, Node, compile_schema

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MAX_SCHEMA_BYTES = 32_768
MAX_BYTES_TOGETHER = 65_536
MAX_PATTERNS_TOGETHER = 2_000

MAX_FAULTS = 5
MAX_LEVELS = 160
"""Maximum depth of nested sub-schemas, counted along one path through the content."""

MAX_CACHE_BYTES = 64 << 20

_MAX_NAME = 100
_MEMBERS_PER_CHECK = 8


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault in a content; `place` is a path such as `.stops[0].name`, or empty for all of it."""

    place: str
    message: str


class Validator:
    """Checks contents against one schema; contents must be JSON of limited depth.

    `bytes` is the most memory that it takes.
    """

    def __init__(self, root: Node, bytes_: int) -> None:
        self._root = root
        self.bytes = bytes_

    def is_valid(self, content: Any, budget: Budget | None = None) -> bool:
        """Return whether a content fits; raises TooManyChecksError."""
        return _Evaluation(budget or Budget()).is_valid(self._root, content)

    def is_valid_at(self, steps: Sequence[str], value: Any, budget: Budget) -> bool:
        """Return whether a value may be at a path in some content; raises TooManyChecksError."""
        return _Evaluation(budget).is_valid_at(self._root, steps, value)

    def faults(self, content: Any, budget: Budget | None = None) -> list[Fault]:
        """Return the first faults, if any; raises TooManyChecksError."""
        evaluation = _Evaluation(budget or Budget())
        return list(islice(evaluation.faults(self._root, content), MAX_FAULTS))


class ValidatorCache:
    """Keeps validators by the JSON of their schemas; threads may share it."""

    def __init__(self, make: Callable[[str], Validator], max_bytes: int = MAX_CACHE_BYTES) -> None:
        self._make = make
        self._max_bytes = max_bytes
        self._validators: OrderedDict[str, Validator] = OrderedDict()
        self._lock = Lock()
        self.bytes = 0

    def get(self, schema: str) -> Validator:
        """Return the validator of a schema; raises the errors of `make`."""
        with self._lock:
            if (known := self._validators.get(schema)) is not None:
                self._validators.move_to_end(schema)
                return known
        validator = self._make(schema)
        with self._lock:
            if schema not in self._validators:
                self._validators[schema] = validator
                self.bytes += validator.bytes
            while self.bytes > self._max_bytes:
                _, oldest = self._validators.popitem(last=False)
                self.bytes -= oldest.bytes
        return validator


def validator_of(schema: dict[str, Any]) -> Validator:
    """Return the validator of an accepted schema; recently used ones are cached."""
    return _CACHE.get(json.dumps(schema))


class _Evaluation:
    """One check of one content. Values are distinguished by identity; equal ones may be shared."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._level = 0
        self._known: dict[tuple[int, int], bool] = {}
        self._reported: set[tuple[int, str]] = set()

    def is_valid(self, node: Node, value: Any) -> bool:
        """Return whether a value fits a node."""
        if node.is_leaf:
            self._budget.spend(node.weight)
            return self._assertions_hold(node, value)
        key = id(node), id(value)
        known = self._known.get(key)
        if known is None:
            self._budget.spend(node.weight)
            self._enter()
            known = self._known[key] = self._holds(node, value)
            self._level -= 1
        return known

    def faults(self, node: Node, value: Any, place: str = "") -> Iterator[Fault]:
        """Yield the faults of a value that were not reported before."""
        if self.is_valid(node, value) or (id(node), place) in self._reported:
            return
        self._reported.add((id(node), place))
        self._enter()
        for message in self._problems(node, value):
            yield Fault(place, message)
        for part in self._applicable(node, value):
            yield from self.faults(part, value, place)
        for part, inner, step in self._parts(node, value):
            if not self.is_valid(part, inner):
                yield from self.faults(part, inner, place + _render_step(step))
        self._level -= 1

    def is_valid_at(self, node: Node, steps: Sequence[str], value: Any) -> bool:
        """Return whether a value may be at a path below the values that fit a node.

        Conditions on other parts of the content are not considered.
        """
        if not steps:
            return self.is_valid(node, value)
        self._budget.spend(node.weight)
        self._enter()
        parts = [*self._of_step(node, steps[0])]
        may_exist = bool(parts) or not node.is_closed
        fits = may_exist and all(self.is_valid_at(part, steps[1:], value) for part in parts)
        fits = fits and all(self.is_valid_at(part, steps, value) for part in node.all_of)
        for choice in (node.any_of, node.one_of):
            fits = fits and (
                not choice or any(self.is_valid_at(part, steps, value) for part in choice)
            )
        self._level -= 1
        return fits

    def _of_step(self, node: Node, step: str) -> Iterator[Node]:
        """Yield the nodes for a member, or for a list item, of unknown values."""
        if step == "-" or (step.isascii() and step.isdigit()):
            place = len(node.prefix) if step == "-" else int(step[:9])
            part = node.prefix[place] if place < len(node.prefix) else node.items
            if part is not None:
                yield part
                return
        is_known = False
        for part in self._of_name(node, step):
            is_known = True
            yield part
        if not is_known and node.additional is not None:
            yield node.additional

    def _enter(self) -> None:
        self._level += 1
        if self._level > MAX_LEVELS:
            raise TooManyChecksError(f"{MAX_LEVELS} levels of sub-schemas")

    def _assertions_hold(self, node: Node, value: Any) -> bool:
        return all(assertion.holds(value, self._budget) for assertion in node.assertions)

    def _holds(self, node: Node, value: Any) -> bool:
        if not self._assertions_hold(node, value):
            return False
        for part in self._applicable(node, value):
            if not self.is_valid(part, value):
                return False
        if node.has_logic and self._logical_problem(node, value):
            return False
        return not isinstance(value, dict | list) or self._parts_hold(node, value)

    def _parts_hold(self, node: Node, value: dict[str, Any] | list[Any]) -> bool:
        if _find_missing(node, value):
            return False
        for part, inner, _ in self._parts(node, value):
            if not self.is_valid(part, inner):
                return False
        return self._problem_of_parts(node, value) is None

    def _problems(self, node: Node, value: Any) -> Iterator[str]:
        """Yield what is wrong with the value as a whole."""
        for assertion in node.assertions:
            if not assertion.holds(value, self._budget):
                yield assertion.describe(value)
        for name in _find_missing(node, value):
            yield f"{render(name)} is a required property"
        if problem := self._logical_problem(node, value):
            yield problem
        if problem := self._problem_of_parts(node, value):
            yield problem

    def _applicable(self, node: Node, value: Any) -> Iterator[Node]:
        """Yield further nodes that the value itself must fit."""
        yield from node.all_of
        if node.if_ is not None:
            branch = node.then if self.is_valid(node.if_, value) else node.else_
            if branch is not None:
                yield branch
        if isinstance(value, dict):
            yield from (part for name, part in node.dependents if name in value)

    def _logical_problem(self, node: Node, value: Any) -> str | None:
        if node.any_of and not self._count_fitting(node.any_of, value, most=1):
            return f"{render(value)} is not valid under any of the schemas listed in 'anyOf'"
        if node.one_of and (fitting := self._count_fitting(node.one_of, value, most=2)) != 1:
            how = "more than one" if fitting else "none"
            return f"{render(value)} is valid under {how} of the schemas listed in 'oneOf'"
        if node.not_ is not None and self.is_valid(node.not_, value):
            return f"{render(value)} is valid under the schema in 'not'"
        return None

    def _count_fitting(self, nodes: Sequence[Node], value: Any, *, most: int) -> int:
        """Return how many nodes the value fits, counting up to `most`."""
        count = 0
        for node in nodes:
            if self.is_valid(node, value):
                count += 1
                if count == most:
                    break
        return count

    def _parts(self, node: Node, value: Any) -> Iterator[tuple[Node, Any, str | int]]:
        """Yield the nodes for the value's members and items, each with its part and step."""
        if isinstance(value, dict):
            if node.properties is not None or node.patterns or node.additional is not None:
                yield from self._members(node, value)
        elif isinstance(value, list) and (node.prefix or node.items is not None):
            for index, item in enumerate(value):
                part = node.prefix[index] if index < len(node.prefix) else node.items
                if part is None:
                    break
                yield part, item, index

    def _members(self, node: Node, value: dict[str, Any]) -> Iterator[tuple[Node, Any, str]]:
        self._budget.spend(len(value) // _MEMBERS_PER_CHECK)
        for name, inner in value.items():
            is_known = False
            for part in self._of_name(node, name):
                is_known = True
                yield part, inner, name
            if not is_known and node.additional is not None:
                yield node.additional, inner, name

    def _of_name(self, node: Node, name: str) -> Iterator[Node]:
        if node.properties is not None and name in node.properties:
            yield node.properties[name]
        for pattern, part in node.patterns:
            if pattern.matches(name, self._budget):
                yield part

    def _problem_of_parts(self, node: Node, value: Any) -> str | None:
        if isinstance(value, list):
            return (
                None if node.contains is None else self._problem_of_contains(node.contains, value)
            )
        if isinstance(value, dict) and node.names is not None:
            for name in value:
                if not self.is_valid(node.names, name):
                    return f"the name {render(name)} does not fit the schema in 'propertyNames'"
        if (
            isinstance(value, dict)
            and node.is_closed
            and (found := self._find_unexpected(node, value))
        ):
            names = ", ".join(f"'{name[:_MAX_NAME]}'" for name in found[:MAX_FAULTS])
            were = "was" if len(found) == 1 else "were"
            return f"Additional properties are not allowed ({names} {were} unexpected)"
        return None

    def _find_unexpected(self, node: Node, value: dict[str, Any]) -> list[str]:
        self._budget.spend(len(value) // _MEMBERS_PER_CHECK)
        return [name for name in value if next(self._of_name(node, name), None) is None]

    def _problem_of_contains(self, contains: Contains, value: list[Any]) -> str | None:
        count = self._count_fitting_items(contains.node, value)
        if count >= contains.least and (contains.most is None or count <= contains.most):
            return None
        return f"{render(value)} has {count} items that fit the schema in 'contains'"

    def _count_fitting_items(self, node: Node, items: list[Any]) -> int:
        count = 0
        for item in items:
            count += self.is_valid(node, item)
        return count


def _find_missing(node: Node, value: Any) -> list[str]:
    return [name for name in node.required if name not in value] if isinstance(value, dict) else []


def _render_step(step: str | int) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    return f".{step}" if len(step) <= _MAX_NAME else f".{step[:_MAX_NAME]}…"


def check_object_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema; raises ValueError unless it is an accepted schema of an object."""
    if (size := len(json.dumps(schema, ensure_ascii=False).encode())) > MAX_SCHEMA_BYTES:
        raise ValueError(f"is {size:,} bytes of JSON; use at most {MAX_SCHEMA_BYTES:,}")
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


_CACHE = ValidatorCache(lambda text: Validator(*compile_schema(text)))
