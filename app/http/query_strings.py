"""Query strings read by pydantic alone.

FastAPI's own reading of a query model and two headers took a quarter of a get's time
(docs/decisions/0004-hot-path.md), so the routes on the hot path read theirs here.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from app.errors import InvalidRequestError
from app.http.problems import invalid_request, listed_errors

MAX_PARAMETERS = 32

Query = TypeVar("Query", bound=BaseModel)


def check_query_size(request: Request) -> None:
    """Raise InvalidRequestError if the URL has more parameters than any route takes."""
    if request.scope["query_string"].count(b"&") >= MAX_PARAMETERS:
        raise InvalidRequestError(
            f"The URL has more than {MAX_PARAMETERS} query parameters; leave some out."
        )


def read_query(model: type[Query], request: Request) -> Query:
    """Return the query string as a model; raises InvalidRequestError naming the parameter."""
    try:
        return model.model_validate(dict(request.query_params))
    except ValidationError as error:
        found = [{**one, "loc": ("query", *one["loc"])} for one in listed_errors(error)]
        raise invalid_request(found) from error


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
