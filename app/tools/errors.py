"""Mistakes of models (ToolError), and of the applications that forward their calls."""

import json
from collections.abc import Iterable

from app.errors import NotFoundError


class ToolError(Exception):
    """A model's mistake; the message is for the model and says how to call the tool instead."""


class MemoryNotFoundError(ToolError):
    """No memory that the caller can see has this id."""

    def __init__(self, memory: str) -> None:
        super().__init__(
            f"There is no memory {json.dumps(memory[:200], ensure_ascii=False)}. Take an id as "
            "search_memories returns it; or the memory was forgotten meanwhile."
        )


class ToolNotFoundError(NotFoundError):
    """No tool has this name."""

    code = "tool_not_found"
    title = "Tool not found"

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(
            f'There is no tool "{name}"; there are {", ".join(known)}. '
            "Send each call of your model to the tool that it names."
        )
