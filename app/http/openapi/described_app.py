"""A FastAPI application whose document has everything a client can rely on."""

from typing import Any

from fastapi import FastAPI
from typing_extensions import override

from app.http.openapi.examples import add_examples
from app.http.openapi.operations import HEADERS, complete, operations
from app.http.openapi.schemas import tidy
from app.http.problems import Problem

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
