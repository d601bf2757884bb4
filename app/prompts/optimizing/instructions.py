"""The texts that models are sent about prompts, from `app/prompts/templates/*.md`."""

import re
from collections.abc import Iterable, Mapping
from importlib.resources import files
from string import Template

_TEMPLATES = files("app.prompts").joinpath("templates")
_TEXTS: Mapping[str, str] = {
    file.name.removesuffix(".md"): file.read_text(encoding="utf-8").strip()
    for file in _TEMPLATES.iterdir()
    if file.name.endswith(".md")
}


def filled(name: str, **values: str) -> str:
    """Return a template with its `$placeholders` replaced; the values are taken as they are."""
    return Template(_TEXTS[name]).substitute(values)


def section(name: str, title: str, **values: str) -> str:
    """Return one section of a template, filled in."""
    return Template(_SECTIONS[name][title]).substitute(values)


def joined(*parts: str) -> str:
    """Return the parts that say something, as paragraphs."""
    return "\n\n".join(part.strip() for part in parts if part.strip())


def with_variables(template: str, values: Mapping[str, str]) -> str:
    """Return a user's own template with `{variable}` replaced where the variable is known.

    All other braces, `{{variable}}` too, are only braces; so are those in the values.
    """
    return _variables(values).sub(lambda found: values[found[1] or found[2]], template)


def has_variable(template: str, name: str) -> bool:
    """Whether a user's own template has a place for a value."""
    return _variables([name]).search(template) is not None


def _variables(names: Iterable[str]) -> re.Pattern[str]:
    known = rf"\{{({'|'.join(map(re.escape, names))})\}}"
    return re.compile(rf"(?<!\{{){known}|{known}(?!\}})")


def _sections(text: str) -> dict[str, str]:
    parts = re.split(r"^## (\w+)\n", text, flags=re.MULTILINE)
    return {title: body.strip() for title, body in zip(parts[1::2], parts[2::2], strict=True)}


_SECTIONS: Mapping[str, Mapping[str, str]] = {
    name: _sections(_TEXTS[name]) for name in ("placeholders", "tools", "turns")
}
