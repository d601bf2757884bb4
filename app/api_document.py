"""The application's OpenAPI document: FastAPI's, completed where it knows less than we do."""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from typing_extensions import override

from app.problems import BODY_PROBLEMS, Problem

_REFERENCES = "#/components/schemas/{model}"

_METHODS = {"get", "put", "post", "patch", "delete"}


class DescribedApp(FastAPI):
    """FastAPI whose OpenAPI document says all that a client can rely on."""

    @override
    def openapi(self) -> dict[str, Any]:
        """Return the document; completing it again changes nothing."""
        document = super().openapi()
        _add_problem_schemas(document)
        schemes = document["components"]["securitySchemes"]
        schemes["Bearer"] = {"type": "http", "scheme": "bearer"}
        for operation in _operations(document):
            _complete(operation)
        return document


def _operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for methods in document["paths"].values():
        yield from (methods[method] for method in methods.keys() & _METHODS)


def _add_problem_schemas(document: dict[str, Any]) -> None:
    problem = Problem.model_json_schema(ref_template=_REFERENCES)
    parts = problem.pop("$defs")
    schemas = document["components"]["schemas"]
    known = parts | {Problem.__name__: problem} | schemas
    document["components"]["schemas"] = dict(sorted(known.items()))


def _complete(operation: dict[str, Any]) -> None:
    for parameter in operation.get("parameters", ()):
        _drop_null(parameter)
    security = operation.get("security", [])
    if security and {} not in security:
        security += [{"Bearer": []}, {}]  # a server without keys asks for none
    responses = operation["responses"]
    if "requestBody" in operation:
        responses |= BODY_PROBLEMS
    operation["responses"] = dict(sorted(responses.items()))


def _drop_null(parameter: dict[str, Any]) -> None:
    """Say that a header or query parameter is absent rather than null, which has no spelling."""
    schema = parameter["schema"]
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) == 1:
        del schema["anyOf"]
        parameter["schema"] = kinds[0] | schema
