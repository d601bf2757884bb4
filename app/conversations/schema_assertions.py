"""Tests of single values: keywords without sub-schemas, their patterns, and the budget they spend.

The budget is explained in docs/decisions/0016-bounded-schemas.md.
"""

import json
import operator
import re
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeAlias

from jsonschema_rs import Draft202012Validator, RegexOptions, ValidationError

MAX_CHECKS = 30_000
"""One check is one sub-schema applied to one value; long texts and patterns count for more.

All of them take at most a tenth of a second, in Python code that lets other threads run.
"""


class TooManyChecksError(Exception):
    """Checking content exceeds its budget."""

    def __init__(self, limit: str) -> None:
        super().__init__(
            f"takes more than {limit} to check against its schema; "
            "shorten the content or simplify the schema"
        )


class Budget:
    """Counts checks; one budget may serve several contents."""

    def __init__(self, checks: int = MAX_CHECKS) -> None:
        self._checks = checks
        self._left = checks

    @property
    def spent(self) -> int:
        """The checks made so far."""
        return self._checks - self._left

    def spend(self, checks: int) -> None:
        """Count checks; raises TooManyChecksError if there were too many."""
        self._left -= checks
        if self._left < 0:
            raise TooManyChecksError(f"{self._checks:,} checks")


MAX_PATTERN_CHARACTERS = 256
MAX_CLASS_ESCAPES = 20
MAX_TOTAL_CHARACTERS = 1_000
MAX_TOTAL_BYTES = 524_288

_SIZES = {8_192: 1, 65_536: 8, 262_144: 40}
"""Sizes of a compiled pattern, and the checks that a character of text counts for at each.

The engine is linear in the text, by a factor that grows with the pattern: the slowest patterns
we found took 0.5, 5, and 36 microseconds per character.
"""
_STATE_BYTES = 65_536
"""Limit of the engine's cache of states, in each direction."""

_CLASS_ESCAPE = re.compile(r"\\[dDsSwWpP]")


class Pattern:
    """A regular expression whose matches take time linear in the text; no look-around.

    Raises ValueError for one that is invalid or too large.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        if len(source) > MAX_PATTERN_CHARACTERS:
            raise ValueError(
                f"has a pattern of {len(source):,} characters; use at most {MAX_PATTERN_CHARACTERS}"
            )
        if len(_CLASS_ESCAPE.findall(source)) > MAX_CLASS_ESCAPES:
            # The engine takes seconds for a few thousand of them.
            raise ValueError(
                rf'has a pattern with more than {MAX_CLASS_ESCAPES} escapes such as "\s"'
            )
        if (largest := _compile(source, max(_SIZES))) is None:
            raise ValueError(
                f'has the pattern "{source}", which is invalid, looks around or back, or compiles '
                f"to more than {max(_SIZES) // 1024} KiB; for lengths use minLength and maxLength"
            )
        self.compiled_bytes, self._checks = next(
            (size, checks) for size, checks in _SIZES.items() if _compile(source, size)
        )
        self._compiled = largest

    def matches(self, text: str, budget: Budget) -> bool:
        """Return whether the pattern matches anywhere in a text."""
        budget.spend(1 + len(text) * self._checks)
        return self._compiled.is_valid(text)


class PatternSet:
    """The patterns of one schema; equal ones are compiled once."""

    def __init__(self) -> None:
        self._patterns: dict[str, Pattern] = {}

    def get(self, source: str) -> Pattern:
        """Return a pattern; raises ValueError if it or all patterns together are too large."""
        if source not in self._patterns:
            if sum(map(len, (*self._patterns, source))) > MAX_TOTAL_CHARACTERS:
                raise ValueError(f"has patterns of more than {MAX_TOTAL_CHARACTERS:,} characters")
            pattern = self._patterns[source] = Pattern(source)
            if self.compiled_bytes > MAX_TOTAL_BYTES:
                raise ValueError(
                    f"has patterns that compile to more than {MAX_TOTAL_BYTES // 1024} KiB; "
                    f'one of them is "{pattern.source}"'
                )
        return self._patterns[source]

    @property
    def memory(self) -> int:
        """The most memory that all patterns and their caches take."""
        return self.compiled_bytes + 2 * _STATE_BYTES * len(self._patterns)

    @property
    def compiled_bytes(self) -> int:
        """The size of all patterns, rounded up."""
        return sum(pattern.compiled_bytes for pattern in self._patterns.values())


def _compile(source: str, size: int) -> Draft202012Validator | None:
    options = RegexOptions(size_limit=size, dfa_size_limit=_STATE_BYTES)
    try:
        return Draft202012Validator({"pattern": source}, pattern_options=options)
    except ValidationError:
        return None


Holds: TypeAlias = Callable[[Any, Budget], bool]

_MAX_SHOWN = 200
_MAX_LISTED = 20
_CHARACTERS_PER_CHECK = 64
_CHECKS_PER_DIVISION = 20


@dataclass(frozen=True, slots=True)
class Assertion:
    """A test of a value, and the message if it fails."""

    holds: Holds
    describe: Callable[[Any], str]


def assertions_of(schema: Mapping[str, Any], patterns: PatternSet) -> tuple[Assertion, ...]:
    """Return the assertions of a schema; raises ValueError for a pattern that is too large."""
    found = [make(schema[name]) for name, make in _KEYWORDS.items() if name in schema]
    if schema.get("uniqueItems"):
        found.append(
            Assertion(_is_unique, lambda value: f"{render(value)} has non-unique elements")
        )
    if "pattern" in schema:
        pattern = patterns.get(schema["pattern"])
        found.append(
            Assertion(
                lambda value, budget: not isinstance(value, str) or pattern.matches(value, budget),
                lambda value: f'{render(value)} does not match "{pattern.source}"',
            )
        )
    return tuple(found)


def render(value: Any) -> str:
    """Return a value as JSON, cut to fit into a message."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


def plural(count: float, noun: str, many: str) -> str:
    """Return a number with its noun."""
    return f"{count} {noun if count == 1 else many}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_TYPES: dict[str, Callable[[Any], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "number": _is_number,
    "integer": lambda value: _is_number(value) and (isinstance(value, int) or value.is_integer()),
}


def _type(names: str | Sequence[str]) -> Assertion:
    names = [names] if isinstance(names, str) else names
    tests = [_TYPES[name] for name in names]
    listed = ", ".join(f'"{name}"' for name in names)
    noun = "type" if len(names) == 1 else "types"
    return Assertion(
        lambda value, _: any(test(value) for test in tests),
        lambda value: f"{render(value)} is not of {noun} {listed}",
    )


def _canonical(value: Any, budget: Budget) -> str:
    """Return a text that is the same for two JSON values if, and only if, they are equal."""
    if isinstance(value, str):
        text = f'"{value}'
    elif isinstance(value, dict | list):
        text = json.dumps(_with_whole_numbers(value), sort_keys=True)
    else:
        text = str(_with_whole_numbers(value))
    budget.spend(1 + len(text) // _CHARACTERS_PER_CHECK)
    return text


def _with_whole_numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _with_whole_numbers(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_with_whole_numbers(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _enum(options: Sequence[Any]) -> Assertion:
    known = {_canonical(option, Budget()) for option in options}
    *first, last = [render(option) for option in options[:_MAX_LISTED]]
    if len(options) > _MAX_LISTED:
        last = f"{last} …"
    listed = f"{', '.join(first)} or {last}" if first else last
    return Assertion(
        lambda value, budget: _canonical(value, budget) in known,
        lambda value: f"{render(value)} is not one of {listed}",
    )


def _const(wanted: Any) -> Assertion:
    known = _canonical(wanted, Budget())
    return Assertion(
        lambda value, budget: _canonical(value, budget) == known,
        lambda _: f"{render(wanted)} was expected",
    )


def _is_unique(value: Any, budget: Budget) -> bool:
    if not isinstance(value, list):
        return True
    return len({_canonical(item, budget) for item in value}) == len(value)


def _multiple_of(divisor: float) -> Assertion:
    exact = _to_fraction(divisor)

    def holds(value: Any, budget: Budget) -> bool:
        if not _is_number(value):
            return True
        budget.spend(_CHECKS_PER_DIVISION)
        return _to_fraction(value) % exact == 0

    return Assertion(holds, lambda value: f"{render(value)} is not a multiple of {divisor}")


def _to_fraction(number: float) -> Fraction:
    """Return a number's exact decimal value: 0.1 is a tenth."""
    return Fraction(number) if isinstance(number, int) else Fraction(repr(number))


def _bound(compare: Callable[[Any, Any], bool], words: str) -> Callable[[float], Assertion]:
    return lambda limit: Assertion(
        lambda value, _: not _is_number(value) or compare(value, limit),
        lambda value: f"{render(value)} is {words} of {limit}",
    )


def _size(
    kind: type[Sized], compare: Callable[[Any, Any], bool], words: str, noun: str, many: str
) -> Callable[[float], Assertion]:
    return lambda limit: Assertion(
        lambda value, _: not isinstance(value, kind) or compare(len(value), limit),
        lambda value: f"{render(value)} {words} {plural(limit, noun, many)}",
    )


_KEYWORDS: dict[str, Callable[[Any], Assertion]] = {
    "type": _type,
    "enum": _enum,
    "const": _const,
    "multipleOf": _multiple_of,
    "minimum": _bound(operator.ge, "less than the minimum"),
    "maximum": _bound(operator.le, "greater than the maximum"),
    "exclusiveMinimum": _bound(operator.gt, "less than or equal to the minimum"),
    "exclusiveMaximum": _bound(operator.lt, "greater than or equal to the maximum"),
    "minLength": _size(str, operator.ge, "is shorter than", "character", "characters"),
    "maxLength": _size(str, operator.le, "is longer than", "character", "characters"),
    "minItems": _size(list, operator.ge, "has less than", "item", "items"),
    "maxItems": _size(list, operator.le, "has more than", "item", "items"),
    "minProperties": _size(dict, operator.ge, "has less than", "property", "properties"),
    "maxProperties": _size(dict, operator.le, "has more than", "property", "properties"),
}

ASSERTIONS = {*_KEYWORDS, "uniqueItems", "pattern"}
"""The keywords that `assertions_of` reads."""
