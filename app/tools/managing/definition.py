"""How the tool `manage_memory` is offered: what it does, and its parameters."""

from typing import Any

from app.tools.arguments import either
from app.tools.base import Definition, Offer
from app.tools.managing.contents import content_schema

NAME = "manage_memory"

INSTRUCTIONS = """\
Use it of your own accord when:

1. the user tells you of a preference that will last;
2. the user asks you to remember something, or to do things differently from now on;
3. your work has led to something that should be known next time;
4. a memory turns out to be wrong or out of date."""


def definition(offer: Offer) -> Definition | None:
    """Return the tool with the actions that are left; None where none is."""
    if not offer.actions:
        return None
    return Definition(NAME, _description(offer), _parameters(offer))


def _description(offer: Offer) -> str:
    kind, actions = offer.kind, offer.actions
    lines = [f"{either(actions).capitalize()} a memory, which lasts beyond this conversation."]
    if of_those_there := [action for action in actions if action != "create"]:
        lines.append(
            f"To {either(of_those_there)} one, send its id: the key that search_memory shows."
        )
    if "update" in actions:
        lines.append("An update replaces the whole content.")
    if "create" in actions:
        lines.append("A new memory gets its id by itself; send none.")
    if kind is not None and kind.description:
        lines.append(f"A memory here is a {kind.name}: {kind.description}")
    if kind is not None and kind.singleton:
        then = "; once it exists, update it" if "update" in actions else ""
        lines.append(f"There is only one {kind.name}{then}.")
    return "\n".join([*lines, offer.instructions or INSTRUCTIONS])


def _parameters(offer: Offer) -> dict[str, Any]:
    """Return LangMem's parameters, of which those that are always needed are `required`."""
    actions = offer.actions
    required = []
    if "delete" not in actions:
        required.append("content")
    if "create" not in actions:
        required.append("id")
    content, definitions = content_schema(offer.kind, needed="content" in required)
    default = "create" if "create" in actions else actions[0]
    properties = {
        "content": content,
        "action": {"type": "string", "enum": list(actions), "default": default},
        "id": {
            "type": "string",
            "description": "The key of a memory that is there, as search_memory shows it.",
        },
    }
    if "id" not in required:
        properties["id"] |= {"type": ["string", "null"], "default": None}
    schema = {"type": "object", "properties": properties, "required": required}
    return schema | ({"$defs": definitions} if definitions else {})
