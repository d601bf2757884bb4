"""Regular expressions of schemas, with limits on their size and on the time they take."""

import re

from jsonschema_rs import Draft202012Validator, RegexOptions, ValidationError

from app.conversations.json_schema.budget import Budget

MAX_CHARACTERS = 256
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
        if len(source) > MAX_CHARACTERS:
            raise ValueError(
                f"has a pattern of {len(source):,} characters; use at most {MAX_CHARACTERS}"
            )
        if len(_CLASS_ESCAPE.findall(source)) > MAX_CLASS_ESCAPES:
            # The engine takes seconds for a few thousand of them.
            raise ValueError(
                rf'has a pattern with more than {MAX_CLASS_ESCAPES} escapes such as "\s"'
            )
        if (largest := _compiled(source, max(_SIZES))) is None:
            raise ValueError(
                f'has the pattern "{source}", which is invalid, looks around or back, or compiles '
                f"to more than {max(_SIZES) // 1024} KiB; for lengths use minLength and maxLength"
            )
        self.compiled_bytes, self._checks = next(
            (size, checks) for size, checks in _SIZES.items() if _compiled(source, size)
        )
        self._compiled = largest

    def matches(self, text: str, budget: Budget) -> bool:
        """Tell whether the pattern matches anywhere in a text."""
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


def _compiled(source: str, size: int) -> Draft202012Validator | None:
    options = RegexOptions(size_limit=size, dfa_size_limit=_STATE_BYTES)
    try:
        return Draft202012Validator({"pattern": source}, pattern_options=options)
    except ValidationError:
        return None
