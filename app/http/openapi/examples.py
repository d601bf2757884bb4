"""Examples of requests and responses, by schema."""

import json
from importlib.resources import files
from typing import Any

from app.http.openapi.operations import operations

_SCHEMAS = "#/components/schemas/"


def add_examples(document: dict[str, Any]) -> None:
    """Add to each request and response the example of its schema, if there is one."""
    examples = json.loads((files(__package__) / "examples.json").read_text())
    for operation in operations(document):
        parts = {"request": operation.get("requestBody", {}), **operation["responses"]}
        for place, part in parts.items():
            for content in part.get("content", {}).values():
                name = content.get("schema", {}).get("$ref", "").removeprefix(_SCHEMAS)
                if name in examples and (name != "Problem" or place == "422"):
                    content["example"] = examples[name]
