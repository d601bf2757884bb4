"""The texts that models receive in an extraction, from `templates/*.md`."""

from app.conversations.prompt_text import CONVERSATION_TAGS, Templates
from app.conversations.types import LLMTask, Rights

TEMPLATES = Templates("app.extraction")

PROMPT_VERSION: str = TEMPLATES.version
"""Changes with every template; stored with the memories that a model wrote."""


def tool_text(name: str, **values: str) -> str:
    """Return the description of a tool or an argument: a section of `tools.md`."""
    return TEMPLATES.fill_section("tools", name, **values).strip()


def system_text(task: LLMTask) -> str:
    """Return the part of the prompt that is the same for all conversations of a manager."""
    rights = task.rights
    parts = [TEMPLATES.fill("extract" if task.turns else "tidy")]
    if rights.inserts or rights.updates or any(kind.singleton for kind in task.kinds):
        parts.append(TEMPLATES.fill("writing"))
    if task.existing or task.max_steps > 1:
        parts.extend(_texts_on_existing(rights))
    if task.instructions and task.instructions.strip():
        instructions = CONVERSATION_TAGS.escape(task.instructions.strip())
        parts.append(TEMPLATES.fill("instructions", instructions=instructions))
    return "\n\n".join(parts)


def _texts_on_existing(rights: Rights) -> list[str]:
    names = ["updates" if rights.updates else "fixed"]
    if rights.deletes:
        names.append("deletes")
    return [TEMPLATES.fill(name) for name in names]
