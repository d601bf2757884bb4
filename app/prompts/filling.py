"""Prompts with values in place of their variables, as an application would send them."""

from collections.abc import Iterator, Mapping
from string import Formatter

from app.prompts.optimizing.placeholders import fields_of, marks_in, written


def variables_of(text: str) -> list[str]:
    """Return the names of a prompt's variables, each once, in their order.

    Those are the fields with names of a template of Python's `str.format`; in any other text, every
    name in single or doubled braces. Other braces, such as those of JSON, are text.
    """
    return list(dict.fromkeys(name for _, name in _parts(text, text) if name is not None))


def filled(text: str, variables: Mapping[str, str], *, like: str) -> str:
    """Return a prompt with the variables' values as they are.

    It is read as the prompt `like`, whose place it is to take, is read: by the same program.
    """
    parts = _parts(text, like)
    return "".join(said + ("" if name is None else variables[name]) for said, name in parts)


def _parts(text: str, like: str) -> Iterator[tuple[str, str | None]]:
    """Return the prompt's own texts, each with the name of the variable that follows."""
    has_names = any(_is_name(name) for name, _, _ in fields_of(like) or ())
    return _formatted(text) if has_names else _marked(text)


def _is_name(field: str) -> bool:
    """Tell a field with a name from one that is counted, `{}` or `{0}`."""
    return field[:1].isidentifier()


def _formatted(text: str) -> Iterator[tuple[str, str | None]]:
    for said, name, spec, conversion in Formatter().parse(text):
        if name is None or _is_name(name):
            yield said, name
        else:
            yield said + written((name, spec or "", conversion)), None


def _marked(text: str) -> Iterator[tuple[str, str | None]]:
    end = 0
    for mark in marks_in(text):
        yield text[end : mark.start], mark.name
        end = mark.end
    yield text[end:], None
