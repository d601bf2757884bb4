"""Wording for wishes that a model takes no parameter for."""

from dataclasses import replace

from app.providers.llm.base import Request


def is_forced(request: Request) -> bool:
    """Say whether the model is not free to answer without a call."""
    return bool(request.tools) and request.tool_choice not in {"auto", "none"}


def ask_in_words(request: Request) -> Request:
    """Return the request with its `tool_choice` as a wish at the end of the system text."""
    wish = (
        "Answer by calling at least one of the tools."
        if request.tool_choice == "any"
        else f"Answer by calling the tool {request.tool_choice}."
    )
    return replace(request, system=f"{request.system}\n\n{wish}".strip(), tool_choice="auto")
