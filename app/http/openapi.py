"""The application's OpenAPI document: FastAPI's, completed for client generators."""

import json
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

from fastapi import FastAPI
from typing_extensions import override

from app.http.problems import BODY_PROBLEMS, Problem, problem_response

_METHODS = {"get", "put", "post", "patch", "delete"}

_REQUEST_ID = {"$ref": "#/components/headers/RequestId"}
_RETRY_AFTER = {"$ref": "#/components/headers/RetryAfter"}

HEADERS = {
    "RequestId": {
        "description": "The id of the request, as in the server's log.",
        "schema": {"type": "string"},
    },
    "RetryAfter": {
        "description": "Seconds to wait before sending the request again.",
        "schema": {"type": "integer", "minimum": 0},
    },
}

_ANYWHERE = {
    "431": problem_response("Headers too large"),
    "500": problem_response("Internal error"),
    "503": problem_response("Overloaded or not ready"),
}
_WITH_A_KEY = {"429": problem_response("Too many requests")}

_MAX_INT32 = 2**31 - 1

_SCHEMAS = "#/components/schemas/"

SERVER = {"url": "/", "description": "The server that this document came from."}

DETAILS: dict[str, Any] = {
    "contact": {"name": "The authors of memoryd"},
    "license_info": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
    "servers": [SERVER],
    "openapi_tags": [
        {"name": "store", "description": "Items by namespace and key, with their history."},
        {"name": "search", "description": "Items by meaning, words, and filters."},
        {"name": "batch", "description": "Many operations on items in one request."},
        {"name": "jobs", "description": "Work in the background, most of it done by models."},
        {"name": "managers", "description": "How conversations become memories."},
        {"name": "threads", "description": "Conversations that memories are extracted from."},
        {"name": "prompts", "description": "Named instructions, with versions and labels."},
        {"name": "tools", "description": "Memory tools for the models of agents."},
        {"name": "health", "description": "Probes for operators."},
        {"name": "metrics", "description": "Numbers for monitoring."},
    ],
}
"""Arguments that describe the application."""

_REFERENCES = "#/components/schemas/{model}"


def operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the operations of all paths."""
    for methods in document["paths"].values():
        yield from (methods[method] for method in methods.keys() & _METHODS)


def complete(operation: dict[str, Any]) -> None:
    """Add what the operation shares with others."""
    for parameter in operation.get("parameters", ()):
        _drop_null(parameter)
    security = operation.setdefault("security", [])
    if security and {} not in security:
        security += [{"Bearer": []}, {}]  # a server without keys asks for none
    shared = _ANYWHERE | (_WITH_A_KEY if security else {})
    if "requestBody" in operation:
        shared |= BODY_PROBLEMS
    responses = shared | operation["responses"]
    operation["responses"] = {
        status: _with_headers(status, responses[status]) for status in sorted(responses)
    }
    if "200" in responses:
        _describe_stream(operation["responses"]["200"])


def _with_headers(status: str, response: dict[str, Any]) -> dict[str, Any]:
    headers = {**response.get("headers", {}), "x-request-id": _REQUEST_ID}
    if status in {"429", "503"}:
        headers["Retry-After"] = _RETRY_AFTER
    return {**response, "headers": headers}


def _describe_stream(response: dict[str, Any]) -> None:
    """Describe events as text: `itemSchema`, which FastAPI adds, is a keyword of OpenAPI 3.2."""
    for content in response.get("content", {}).values():
        if "itemSchema" in content:
            del content["itemSchema"]
            content["schema"] = {"type": "string"}


def _drop_null(parameter: dict[str, Any]) -> None:
    """Say that a header or query parameter is absent rather than null, which has no spelling."""
    schema = parameter["schema"]
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) == 1:
        del schema["anyOf"]
        parameter["schema"] = kinds[0] | schema


def tidy(node: Any, name: str | None = None) -> None:
    """Tidy the schemas in a part of the document; `name` is a schema's name in its parent.

    pydantic writes `anyOf` for every choice, though no value here matches two members, repeats
    names as titles, and gives integers no width.
    """
    if isinstance(node, list):
        for part in node:
            tidy(part)
    elif isinstance(node, dict):
        _tidy_schema(node, name)
        for key, part in node.items():
            if key == "properties":
                for member, schema in part.items():
                    tidy(schema, member)
            elif key not in {"examples", "example", "default", "enum"}:
                tidy(part, node.get("name") if key == "schema" else key)


def _tidy_schema(node: dict[str, Any], name: str | None) -> None:
    if name is not None and _repeats(node.get("title"), name):
        del node["title"]
    if isinstance(node.get("anyOf"), list):
        _choose_one(node)
    if node.get("type") == "integer":
        _give_width(node)


def _repeats(title: object, name: str) -> bool:
    """Return whether pydantic or FastAPI made the title from the name."""
    if not isinstance(title, str):
        return False
    return title.startswith("Response ") or title.replace(" ", "_").lower() == name.lower()


def _choose_one(node: dict[str, Any]) -> None:
    """Rename `anyOf` to `oneOf`, keeping the order; drop a choice that allows anything."""
    members = {("oneOf" if key == "anyOf" else key): part for key, part in node.items()}
    if {} in members["oneOf"]:
        del members["oneOf"]
    node.clear()
    node.update(members)


def _give_width(node: dict[str, Any]) -> None:
    for bound in ("minimum", "maximum"):
        if bound in node:
            node[bound] = int(node[bound])
    is_small = "maximum" in node and node["maximum"] <= _MAX_INT32
    node["format"] = "int32" if is_small else "int64"


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


class DescribedApp(FastAPI):
    """FastAPI with a document that names errors, headers, formats, and examples."""

    @override
    def openapi(self) -> dict[str, Any]:
        """Return the document; it is completed once and kept."""
        if self.openapi_schema is None:
            self.openapi_schema = _completed(super().openapi())
        return self.openapi_schema


def _completed(document: dict[str, Any]) -> dict[str, Any]:
    components = document["components"]
    components["schemas"] = dict(sorted((_problem_schemas() | components["schemas"]).items()))
    components["headers"] = HEADERS
    components["securitySchemes"]["Bearer"] = {"type": "http", "scheme": "bearer"}
    for operation in operations(document):
        complete(operation)
    tidy(document)
    add_examples(document)
    return document


def _problem_schemas() -> dict[str, Any]:
    problem = Problem.model_json_schema(ref_template=_REFERENCES)
    parts: dict[str, Any] = problem.pop("$defs")
    return parts | {Problem.__name__: problem}
