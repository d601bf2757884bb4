"""Placeholders of a prompt: `{name}` and `{{name}}`.

A text that Python's `str.format` can fill in is read that way: its placeholders are its fields, and
a doubled brace is a brace. In any other text every name in single or doubled braces is a
placeholder, and all other braces, such as those of JSON, are text.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
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
