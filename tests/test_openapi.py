"""The OpenAPI document: what is committed is what is served, and generators can rely on it."""

import re
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.openapi import as_yaml, document
from app.problems import MEDIA_TYPE

COMMITTED = Path(__file__).parents[1] / "openapi.yaml"

OPENAPI = document()

PROBLEM = {"$ref": "#/components/schemas/Problem"}


OPERATIONS = {
    f"{method.upper()} {path}": operation
    for path, methods in OPENAPI["paths"].items()
    for method, operation in methods.items()
}

FIELDS = {
    f"{name}.{field}": definition
    for name, schema in OPENAPI["components"]["schemas"].items()
    for field, definition in schema.get("properties", {}).items()
}

of_every_operation = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)


def test_openapi_yaml_is_up_to_date() -> None:
    assert COMMITTED.read_text() == as_yaml(OPENAPI), "run `make openapi`"


async def test_the_server_serves_the_same_document(client: httpx2.AsyncClient) -> None:
    assert (await client.get("/openapi.json")).json() == OPENAPI
    assert (await client.get("/openapi.json")).json() == OPENAPI


def test_no_server_is_named() -> None:
    assert "servers" not in OPENAPI
    assert "http" not in COMMITTED.read_text().replace("type: http", "")


def test_operation_ids_are_unique_verb_phrases() -> None:
    ids = [operation["operationId"] for operation in OPERATIONS.values()]
    assert len(set(ids)) == len(ids)
    assert [one for one in ids if not re.fullmatch(r"[a-z]+(_[a-z]+){1,3}", one)] == []
    verbs = {one.split("_")[0] for one in ids}
    store = {"put", "get", "patch", "delete", "list", "restore", "search", "run"}
    jobs = {"extract", "consolidate", "summarize", "follow", "cancel", "retry"}
    rest = {"check", "read", "apply", "discard", "undo", "append", "flush", "create", "call"}
    prompts = {"diff", "promote", "rollback", "optimize"}
    assert verbs <= store | jobs | rest | prompts


@of_every_operation
def test_every_failure_is_a_problem_document(operation: dict[str, Any]) -> None:
    failures = {s: r for s, r in operation["responses"].items() if s[0] in "45"}
    for status, response in failures.items():
        assert response["content"] == {MEDIA_TYPE: {"schema": PROBLEM}}, status
    if "health" not in operation["tags"]:
        assert {"401", "403"} <= failures.keys()
    if not {"health", "metrics"} & set(operation["tags"]):
        assert "422" in failures
    if "requestBody" in operation:
        assert {"400", "413"} <= failures.keys()


@of_every_operation
def test_either_key_or_none_is_enough(operation: dict[str, Any]) -> None:
    if "health" in operation["tags"]:
        assert "security" not in operation
    else:
        assert operation["security"] == [{"ApiKey": []}, {"Bearer": []}, {}]


@of_every_operation
def test_every_parameter_is_described_and_never_null(operation: dict[str, Any]) -> None:
    for parameter in operation.get("parameters", ()):
        assert parameter["description"], parameter["name"]
        assert "anyOf" not in parameter["schema"], parameter["name"]


@pytest.mark.parametrize("field", FIELDS.values(), ids=FIELDS)
def test_every_field_is_described(field: dict[str, Any]) -> None:
    assert "const" in field or field["description"]


def test_the_problem_schema_is_complete() -> None:
    schemas = OPENAPI["components"]["schemas"]
    required = ["type", "title", "status", "detail", "code"]
    assert schemas["Problem"]["required"] == required
    assert schemas["FieldProblem"]["required"] == ["field", "detail"]
    assert not [name for name in schemas if "ValidationError" in name]
