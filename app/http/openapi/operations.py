"""Parts that all operations share: security, errors, and response headers."""

from collections.abc import Iterator
from typing import Any

from app.http.problems import BODY_PROBLEMS, problem_response

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
