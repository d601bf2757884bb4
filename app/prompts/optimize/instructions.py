"""The texts that models are sent about prompts, from `app/prompts/templates/*.md`."""

import re
from collections.abc import Mapping
from importlib.resources import files
from string import Template

_TEMPLATES = files("app.prompts").joinpath("templates")
_TEXTS: Mapping[str, str] = {
    file.name.removesuffix(".md"): file.read_text(encoding="utf-8").strip()
    for file in _TEMPLATES.iterdir()
    if file.name.endswith(".md")
}


def render_template(name: str, **values: str) -> str:
    """Return a template with its `$placeholders` replaced; the values are inserted verbatim."""
    return Template(_TEXTS[name]).substitute(values)


def render_section(name: str, title: str, **values: str) -> str:
    """Return one section of a template, with its `$placeholders` replaced."""
    return Template(_SECTIONS[name][title]).substitute(values)


def join(*parts: str) -> str:
    """Return the parts that are not blank, as paragraphs."""
    return "\n\n".join(part.strip() for part in parts if part.strip())


def _sections(text: str) -> dict[str, str]:
    parts = re.split(r"^## (\w+)\n", text, flags=re.MULTILINE)
    return {title: body.strip() for title, body in zip(parts[1::2], parts[2::2], strict=True)}


_SECTIONS: Mapping[str, Mapping[str, str]] = {
    name: _sections(_TEXTS[name]) for name in ("placeholders", "tools", "turns")
}
