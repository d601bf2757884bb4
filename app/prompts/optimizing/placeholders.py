"""The variables of a prompt, which survive every change of it.

Programs fill prompts in in many ways: `str.format`, Mustache, Jinja, their own replacing. Which
one is not known, so a name in braces counts as a variable, whatever reads it; and a text that is a
format string must remain one, or the program that formats it fails. All other braces are text.
"""

import re
from collections.abc import Iterable, Iterator
from string import Formatter
from typing import NamedTuple, TypeAlias, TypeVar

from app.prompts.optimizing.instructions import joined, section

_T = TypeVar("_T")

Field: TypeAlias = tuple[str, str, str | None]
"""Of a format string: its name, how it is written (spec), and how it is converted."""

_MAX_NAMED = 20


class Mark(NamedTuple):
    """A name in braces: where it begins and ends, and how many braces are on both of its sides."""

    start: int
    end: int
    name: str
    depth: int


# {name}; {{name}} and {{ name }}, as in Mustache and Jinja; {{{name}}}.
_MARK = re.compile(r"(?<!\{)(?:(\{+)([^\W\d][\w.-]*)(\}+)|(\{\{+)\s+([^\W\d][\w.-]*)\s+(\}\}+))")

# What a field of a format string looks like. Python's own parser reads the JSON {"a": 1} as a
# field too, and the regular expression \d{3} as the fourth value.
_FIELD_NAME = re.compile(r"([^\W\d]\w*|\d*)((?:\.[^\W\d]\w*|\[[^\[\]{}]+\])*)")
_FIELD_SPEC = re.compile(
    r"(?:[^{}]?[<>=^])?[+-]?z?#?(?:\d+|\{\w*\})?[,_]?(?:\.(?:\d+|\{\w*\}))?[bcdeEfFgGnosxX%]?"
    r"|%[^{}]*"  # of a date
)


def marks_in(text: str) -> Iterator[Mark]:
    """Yield the names in braces; braces that one side has more of than the other are text."""
    for match in _MARK.finditer(text):
        opening, name, closing = match.groups()[:3] if match[1] else match.groups()[3:]
        depth = min(len(opening), len(closing))
        start = match.start() + len(opening) - depth
        yield Mark(start, match.end() - len(closing) + depth, name, depth)


def problem(old: str, new: str) -> str | None:
    """Return what a change does to the variables of a prompt; None when they are all still there.

    The text is written for the model that made the change.
    """
    before, after = _variables(old), _variables(new)
    if missing := _only_in(before, after):
        return f"the new prompt lacks {_listed(missing)}, which a program fills in"
    if added := _only_in(after, before):
        return f"the new prompt has {_listed(added)}, which no program fills in"
    fields = fields_of(old)
    return _format_problem(fields, new) if fields else None


def rule(text: str) -> str:
    """Return what a model is told about the variables of a prompt before it changes it."""
    fields = fields_of(text) or []
    names = list(dict.fromkeys([*_variables(text), *map(written, fields)]))
    return joined(
        "# Variables in the prompt",
        section("placeholders", "some", placeholders=", ".join(names))
        if names
        else section("placeholders", "none"),
        section("placeholders", "format" if fields else "plain"),
    )


def _variables(text: str) -> list[str]:
    """Return the names in braces, each with as many as are on both of its sides."""
    names = ("{" * mark.depth + mark.name + "}" * mark.depth for mark in marks_in(text))
    return list(dict.fromkeys(names))


def fields_of(text: str) -> list[Field] | None:
    """Return the fields of a format string, in order; None when the text is not one."""
    try:
        parts = list(Formatter().parse(text))
    except ValueError:
        return None
    fields = [(name, spec or "", how) for _, name, spec, how in parts if name is not None]
    roots = {match[1] if (match := _FIELD_NAME.fullmatch(name)) else None for name, _, _ in fields}
    is_counted = any(root and root.isdigit() for root in roots) and "0" not in roots
    is_plausible = None not in roots and not is_counted and all(map(_can_be_formatted, fields))
    return fields if is_plausible else None


def _can_be_formatted(field: Field) -> bool:
    _, spec, conversion = field
    return conversion in {None, "r", "s", "a"} and _FIELD_SPEC.fullmatch(spec) is not None


def _format_problem(before: list[Field], new: str) -> str | None:
    after = fields_of(new)
    if after is None:
        return (
            "the prompt is a format string, and the new one is not: a brace that is only a brace "
            "must be doubled there"
        )
    if missing := _only_in(before, after):
        return f"the new prompt lacks {_listed(map(written, missing))}, which a program fills in"
    if added := _only_in(after, before):
        return f"the new prompt has {_listed(map(written, added))}, which no program fills in"
    if list(filter(_by_position, before)) != list(filter(_by_position, after)):
        return (
            "fields without a name are filled in in order, so there must be as many, in that order"
        )
    return None


def _by_position(field: Field) -> bool:
    name, spec, _ = field
    return not name or name[0] in ".[" or "{}" in spec


def written(field: Field) -> str:
    """Return a field as it stands in its format string."""
    name, spec, conversion = field
    return (
        "{" + name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "") + "}"
    )


def _only_in(found: Iterable[_T], others: Iterable[_T]) -> list[_T]:
    """Return the elements that are not in `others`, in order."""
    known = set(others)
    return [one for one in found if one not in known]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(list(names)[:_MAX_NAMED])
