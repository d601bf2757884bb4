"""How the tool `memory` is offered: to Anthropic's models by its type, to others as a function."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.tools.base import Action, Definition, Offer

NAME = "memory"

ANTHROPIC = {"type": "memory_20250818", "name": NAME}
"""Anthropic's API describes the tool to its models by itself."""

_NEEDED: Mapping[str, Sequence[Action]] = {
    "view": (),
    "create": ("create",),
    "str_replace": ("update",),
    "insert": ("update",),
    "delete": ("delete",),
    "rename": ("update", "delete"),
}
"""The actions that must be permitted for each command."""

_WHAT = {
    "view": "view shows a directory (path), or a file with line numbers (view_range: some lines)",
    "create": "create writes a new file (path, file_text)",
    "str_replace": "str_replace replaces text that a file holds exactly once "
    "(path, old_str, new_str)",
    "insert": "insert adds text after a line, 0 being the beginning "
    "(path, insert_line, insert_text)",
    "delete": "delete removes a file, or a directory with all that is in it (path)",
    "rename": "rename moves a file or a directory to a path where nothing is (old_path, new_path)",
}

_PROPERTIES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "path": (
        "view create str_replace insert delete",
        {"type": "string", "description": "Path of the file or directory, below /memories."},
    ),
    "view_range": (
        "view",
        {
            "type": "array",
            "items": {"type": "integer"},
            "minItems": 2,
            "maxItems": 2,
            "description": "First and last line to show; -1 is the last line of the file.",
        },
    ),
    "file_text": ("create", {"type": "string", "description": "The whole text of the new file."}),
    "old_str": (
        "str_replace",
        {"type": "string", "description": "The text to replace, exactly as the file has it."},
    ),
    "new_str": ("str_replace", {"type": "string", "description": "What to write instead."}),
    "insert_line": (
        "insert",
        {"type": "integer", "minimum": 0, "description": "The line to insert after."},
    ),
    "insert_text": ("insert", {"type": "string", "description": "The lines to insert."}),
    "old_path": ("rename", {"type": "string", "description": "Path of what to move."}),
    "new_path": ("rename", {"type": "string", "description": "Its path from then on."}),
}
"""Each parameter with the commands that it belongs to."""


def permitted(actions: Sequence[Action]) -> list[str]:
    """Return the commands that need no other actions."""
    return [command for command, needed in _NEEDED.items() if set(needed) <= set(actions)]


def definition(offer: Offer) -> Definition:
    """Return the tool with the commands that an application permits."""
    commands = permitted(offer.actions)
    lines = [
        "Files below /memories, which last beyond this conversation. View /memories before "
        "you do anything else, and write down what should be known next time.",
        "Commands:",
        *(f"- {_WHAT[command]}" for command in commands),
    ]
    properties: dict[str, Any] = {"command": {"type": "string", "enum": commands}}
    for name, (belongs_to, schema) in _PROPERTIES.items():
        if set(belongs_to.split()) & set(commands):
            properties[name] = schema
    parameters = {"type": "object", "properties": properties, "required": ["command"]}
    return Definition(NAME, "\n".join(lines), parameters, ANTHROPIC)
