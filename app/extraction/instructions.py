"""The texts that models are sent, from `templates/*.md`."""

import hashlib
from collections.abc import Mapping
from importlib.resources import files
from string import Template

from app.conversations.render import escaped
from app.conversations.types import LLMTask, Rights

_TEMPLATES = files("app.extraction").joinpath("templates")
_TEXTS: Mapping[str, str] = {
    file.name.removesuffix(".md"): file.read_text(encoding="utf-8").strip()
    for file in sorted(_TEMPLATES.iterdir(), key=lambda file: file.name)
    if file.name.endswith(".md")
}

PROMPT_VERSION: str = hashlib.sha256("\0".join(_TEXTS.values()).encode()).hexdigest()[:12]
"""Changes whenever a template does; kept with the memories that a model wrote."""


def filled(name: str, **values: str) -> str:
    """Return a template with its `$placeholders` replaced; the values are taken as they are."""
    return Template(_TEXTS[name]).substitute(values)


def tool_text(name: str, **values: str) -> str:
    """Return what models are told about a tool or an argument: a section of `tools.md`."""
    return Template(_TOOL_TEXTS[name]).substitute(values).strip()


def system_text(task: LLMTask) -> str:
    """Return the part of the prompt that is the same for all conversations of a manager."""
    rights = task.rights
    parts = [filled("extract" if task.turns else "tidy")]
    if rights.inserts or rights.updates or any(kind.singleton for kind in task.kinds):
        parts.append(filled("writing"))
    if task.existing or task.max_steps > 1:
        parts.extend(_about_existing(rights))
    if task.instructions and task.instructions.strip():
        parts.append(filled("instructions", instructions=escaped(task.instructions.strip())))
    return "\n\n".join(parts)


def _about_existing(rights: Rights) -> list[str]:
    names = ["updates" if rights.updates else "fixed"]
    if rights.deletes:
        names.append("deletes")
    return [filled(name) for name in names]


def _sections(text: str) -> dict[str, str]:
    sections = (section.partition("\n") for section in text.removeprefix("## ").split("\n## "))
    return {name: body.strip() for name, _, body in sections}


_TOOL_TEXTS = _sections(_TEXTS["tools"])
