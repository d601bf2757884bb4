"""Texts of prompts: their placeholders `{name}` and `{{name}}`, and unified diffs of them.

A text that Python's `str.format` can fill in is read that way: its placeholders are its fields, and
a doubled brace is a brace. In any other text every name in single or doubled braces is a
placeholder, and all other braces, such as those of JSON, are text.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from string import Formatter
from typing import NamedTuple, TypeVar

from typing_extensions import override

_T = TypeVar("_T")

_MAX_NAMED = 20

_PLACEHOLDER = re.compile(r"\{\{\s*([^\W\d][\w.-]*)\s*\}\}|\{([^\W\d][\w.-]*)\}")

# The form of a field. Python's own parser reads the JSON {"a": 1} as a
# field too, and the regular expression \d{3} as the fourth value.
_FIELD_NAME = re.compile(r"([^\W\d]\w*|\d*)((?:\.[^\W\d]\w*|\[[^\[\]{}]+\])*)")
_FIELD_SPEC = re.compile(
    r"(?:[^{}]?[<>=^])?[+-]?z?#?(?:\d+|\{\w*\})?[,_]?(?:\.(?:\d+|\{\w*\}))?[bcdeEfFgGnosxX%]?"
    r"|%[^{}]*"  # of a date
)

MAX_COMPARED_LINES = 1_000
"""Maximum lines between the first and the last change. The time grows with their square, so
comparing more could take seconds."""

_CONTEXT_LINES = 3
_NO_NEWLINE = "\n\\ No newline at end of file\n"
_HUNK = re.compile(r"^@@ -(\d+)(\S*) \+(\d+)(\S*) @@\n")


class Field(NamedTuple):
    """A replacement field of a Python format string."""

    name: str
    spec: str
    conversion: str | None

    @property
    def is_named(self) -> bool:
        """True if the field has a name, unlike `{}` and `{0}`."""
        return self.name[:1].isidentifier()

    @property
    def is_positional(self) -> bool:
        """True if the values of the field are counted."""
        return not self.name or self.name[0] in ".[" or "{}" in self.spec

    @property
    def is_plausible(self) -> bool:
        """True if conversion and spec are those of a field, not of text that looks like one."""
        return self.conversion in {None, "r", "s", "a"} and bool(_FIELD_SPEC.fullmatch(self.spec))

    @override
    def __str__(self) -> str:
        conversion = f"!{self.conversion}" if self.conversion else ""
        spec = f":{self.spec}" if self.spec else ""
        return "{" + self.name + conversion + spec + "}"


def list_variables(text: str) -> list[str]:
    """Return the names of a prompt's variables, each once, in order."""
    return list(dict.fromkeys(name for _, name in _split(text, text) if name is not None))


def render_prompt(text: str, variables: Mapping[str, str], *, like: str) -> str:
    """Return a prompt with the values of its variables inserted verbatim.

    It is read as the program that uses the prompt `like`, which it may replace, would read it.
    """
    parts = _split(text, like)
    return "".join(before + ("" if name is None else variables[name]) for before, name in parts)


def list_placeholders(text: str) -> list[str]:
    """Return the placeholders of a prompt as they are written, each once."""
    return list(dict.fromkeys([*_names_in_braces(text), *map(str, _fields(text) or ())]))


def is_format_string(text: str) -> bool:
    """Return whether a text is a Python format string with at least one field."""
    return bool(_fields(text))


def find_placeholder_problem(old: str, new: str) -> str | None:
    """Return how a change breaks the placeholders of a prompt; None if it keeps all of them.

    The text is written for the model that made the change.
    """
    if changed := _difference(_names_in_braces(old), _names_in_braces(new)):
        return changed
    before = _fields(old)
    if not before:
        return None
    after = _fields(new)
    if after is None:
        return (
            "the prompt is a format string, and the new one is not: a brace that is only a brace "
            "must be doubled there"
        )
    if changed := _difference(before, after):
        return changed
    if [one for one in before if one.is_positional] != [one for one in after if one.is_positional]:
        return (
            "fields without a name are filled in in order, so there must be as many, in that order"
        )
    return None


def _split(text: str, like: str) -> Iterator[tuple[str, str | None]]:
    """Yield the literal parts of a prompt, each with the name of the variable that follows it."""
    if any(field.is_named for field in _fields(like) or ()):
        return _split_format_string(text)
    return _split_at_braces(text)


def _split_format_string(text: str) -> Iterator[tuple[str, str | None]]:
    for literal, name, spec, conversion in Formatter().parse(text):
        if name is None:
            yield literal, None
            continue
        field = Field(name, spec or "", conversion)
        yield (literal, name) if field.is_named else (literal + str(field), None)


def _split_at_braces(text: str) -> Iterator[tuple[str, str | None]]:
    end = 0
    for found in _PLACEHOLDER.finditer(text):
        yield text[end : found.start()], found[1] or found[2]
        end = found.end()
    yield text[end:], None


def _names_in_braces(text: str) -> list[str]:
    found = _PLACEHOLDER.findall(text)
    return [f"{{{{{double}}}}}" if double else f"{{{single}}}" for double, single in found]


def _fields(text: str) -> list[Field] | None:
    """Return the fields of a format string, in order; None if the text is not one."""
    try:
        parts = list(Formatter().parse(text))
    except ValueError:
        return None
    fields = [Field(name, spec or "", how) for _, name, spec, how in parts if name is not None]
    roots = {match[1] if (match := _FIELD_NAME.fullmatch(one.name)) else None for one in fields}
    is_counted = any(root and root.isdigit() for root in roots) and "0" not in roots
    is_plausible = None not in roots and not is_counted and all(one.is_plausible for one in fields)
    return fields if is_plausible else None


def _difference(before: Iterable[_T], after: Iterable[_T]) -> str | None:
    """Return which placeholders a change removes or adds; None if neither."""
    old, new = dict.fromkeys(before), dict.fromkeys(after)
    if missing := [str(one) for one in old if one not in new]:
        return f"the new prompt lacks {_join(missing)}, which a program fills in"
    if added := [str(one) for one in new if one not in old]:
        return f"the new prompt has {_join(added)}, which no program fills in"
    return None


def _join(names: list[str]) -> str:
    return ", ".join(names[:_MAX_NAMED])


def unified_diff(old: str, new: str, old_name: str, new_name: str) -> str:
    """Return the changed lines with three lines of context; empty if the texts are equal.

    If too many lines lie between the first and the last change, all of them count as changed.
    """
    if old == new:
        return ""
    before, after = _split_lines(old), _split_lines(new)
    head = _count_equal(before, after)
    tail = _count_equal(before[head:][::-1], after[head:][::-1])
    start, end = max(head - _CONTEXT_LINES, 0), max(tail - _CONTEXT_LINES, 0)
    before, after = before[start : len(before) - end], after[start : len(after) - end]
    head, tail = head - start, tail - end
    if max(len(before), len(after)) - head - tail <= MAX_COMPARED_LINES:
        _, _, *lines = difflib.unified_diff(before, after, n=_CONTEXT_LINES)
    else:
        lines = list(_replace_all(before, after, head, tail))
    lines = [_HUNK.sub(lambda found: _shift(found, start), line) for line in lines]
    ended = [line if line.endswith("\n") else line + _NO_NEWLINE for line in lines]
    return "".join([f"--- {old_name}\n", f"+++ {new_name}\n", *ended])


def _split_lines(text: str) -> list[str]:
    """Split only at newlines, which stay; other characters that end lines are text."""
    *lines, last = text.split("\n")
    return [line + "\n" for line in lines] + ([last] if last else [])


def _count_equal(before: Sequence[str], after: Sequence[str]) -> int:
    """Return how many lines are equal at the beginning."""
    pairs = enumerate(zip(before, after, strict=False))
    return next((number for number, (a, b) in pairs if a != b), min(len(before), len(after)))


def _replace_all(
    before: Sequence[str], after: Sequence[str], head: int, tail: int
) -> Iterator[str]:
    """Yield one hunk that replaces every line between the equal ends."""
    old_first, new_first = (1 if before else 0), (1 if after else 0)
    yield f"@@ -{old_first},{len(before)} +{new_first},{len(after)} @@\n"
    yield from (" " + line for line in before[:head])
    yield from ("-" + line for line in before[head : len(before) - tail])
    yield from ("+" + line for line in after[head : len(after) - tail])
    yield from (" " + line for line in before[len(before) - tail :])


def _shift(header: re.Match[str], start: int) -> str:
    """Return the header of a hunk whose lines were counted from `start`."""
    old, old_size, new, new_size = header.groups()
    return f"@@ -{int(old) + start}{old_size} +{int(new) + start}{new_size} @@\n"
