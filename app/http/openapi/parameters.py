"""OpenAPI parameters of requests that are read without FastAPI."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel


def query_parameters(model: type[BaseModel]) -> list[dict[str, Any]]:
    """Return the OpenAPI parameters of a query model."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})
    return [
        {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", ()),
            "description": described.pop("description", ""),
            "schema": _inlined(described, definitions),
        }
        for name, described in schema["properties"].items()
    ]


def _inlined(node: Any, definitions: Mapping[str, Any]) -> Any:
    """Return a schema without references: there is nothing in the document that they lead to."""
    if isinstance(node, list):
        return [_inlined(part, definitions) for part in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return definitions[node["$ref"].removeprefix("#/$defs/")]
    return {name: _inlined(part, definitions) for name, part in node.items()}


def header_parameter(name: str, pattern: str, description: str) -> dict[str, Any]:
    """Return the OpenAPI parameter of an optional header."""
    return {
        "name": name,
        "in": "header",
        "required": False,
        "schema": {"type": "string", "pattern": pattern},
        "description": description,
    }
