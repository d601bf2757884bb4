"""Prompts with values in place of their variables, as an application would send them."""

import re
from collections.abc import Iterator, Mapping
from string import Formatter

# {name}; {{name}} and {{ name }}, as in Mustache and Jinja; {{{name}}}.
_VARIABLE = re.compile(r"(\{+)([^\W\d][\w.-]*)(\}+)|(\{\{+)\s+([^\W\d][\w.-]*)\s+(\}\}+)")
_FIELD = re.compile(r"[^\W\d][\w.\[\]]*")


def variables_of(text: str) -> list[str]:
    """Return the names of a prompt's variables, each once, in their order.

    Those are the fields of a template of Python's `str.format`; in any other text, every name in
    single or doubled braces. Other braces, such as those of JSON, are text.
    """
    return list(dict.fromkeys(name for _, name in _parts(text) if name is not None))


def filled(text: str, variables: Mapping[str, str]) -> str:
    """Return the prompt with the variables' values as they are; KeyError for one without."""
    return "".join(said + ("" if name is None else variables[name]) for said, name in _parts(text))


def _parts(text: str) -> list[tuple[str, str | None]]:
    """Return the prompt's own texts, each with the name of the variable that follows."""
    try:
        parts = [(said, name) for said, name, _, _ in Formatter().parse(text)]
    except ValueError:
        return list(_marked(text))
    names = [name for _, name in parts if name is not None]
    return parts if names and all(map(_FIELD.fullmatch, names)) else list(_marked(text))


def _marked(text: str) -> Iterator[tuple[str, str | None]]:
    end = 0
    for match in _VARIABLE.finditer(text):
        opening, name, closing = match.groups()[:3] if match[1] else match.groups()[3:]
        rest = len(closing) - min(len(opening), len(closing))
        yield text[end : match.start()] + opening[len(closing) :], name
        end = match.end() - rest
    yield text[end:], None
