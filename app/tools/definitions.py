"""Definitions of tools in the words of each provider."""

from collections.abc import Mapping
from typing import Any, assert_never

from app.tools.base import Definition
from app.tools.schemas import Format


def written(definition: Definition, form: Format) -> Mapping[str, Any]:
    """Return what a provider's `tools`, or MCP's `tools/list`, takes."""
    told = {"name": definition.name, "description": definition.description}
    match form:
        case "openai":
            function = {**told, "parameters": definition.parameters}
            return {"type": "function", "function": function}
        case "openai_responses":
            # Strict, the default there, knows no optional arguments.
            return {
                "type": "function",
                **told,
                "parameters": definition.parameters,
                "strict": False,
            }
        case "anthropic":
            return definition.anthropic or {**told, "input_schema": definition.parameters}
        case "mcp":
            return {**told, "inputSchema": definition.parameters}
        case _:
            assert_never(form)
