"""Prompts with values in place of their variables, as an application would send them."""

import re
from collections.abc import Mapping
from string import Formatter

_TOKEN = re.compile(r"\{\{([A-Za-z_]\w*)\}\}|\{([A-Za-z_]\w*)\}", re.ASCII)
_FIELD = re.compile(r"[A-Za-z_][\w.\[\]]*", re.ASCII)


def variables_of(text: str) -> list[str]:
    """Return the names of a prompt's variables, each once, in their order.

    Those are the fields of a template of Python's `str.format`; in any other text, every name in
    single or doubled braces. Other braces, such as those of JSON, are text.
    """
    parts = _format_parts(text)
    names = [name for _, name in parts] if parts else [m[1] or m[2] for m in _TOKEN.finditer(text)]
    return list(dict.fromkeys(name for name in names if name is not None))


def filled(text: str, variables: Mapping[str, str]) -> str:
    """Return the prompt with the variables' values as they are; KeyError for one without."""
    if parts := _format_parts(text):
        return "".join(said + ("" if name is None else variables[name]) for said, name in parts)
    return _TOKEN.sub(lambda match: variables[match[1] or match[2]], text)


def _format_parts(text: str) -> list[tuple[str, str | None]]:
    """Return the literal texts of a template and the fields after them; none if it is not one."""
    try:
        parts = [(said, name) for said, name, _, _ in Formatter().parse(text)]
    except ValueError:
        return []
    names = [name for _, name in parts if name is not None]
    return parts if names and all(map(_FIELD.fullmatch, names)) else []
