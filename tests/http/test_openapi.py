"""The OpenAPI document: what is committed is what is served, and generators can rely on it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from app.cli.openapi import as_yaml, document
from app.http.openapi import DETAILS
from app.http.problems import MEDIA_TYPE

COMMITTED = Path(__file__).parents[2] / "openapi.yaml"

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

SCHEMAS = OPENAPI["components"]["schemas"]


def test_openapi_yaml_is_up_to_date() -> None:
    assert COMMITTED.read_text() == as_yaml(OPENAPI), "run `make openapi`"


async def test_the_server_serves_the_same_document(client: httpx2.AsyncClient) -> None:
    for _ in range(2):  # the document is completed once
        served = (await client.get("/openapi.json")).json()
        assert served.pop("servers") == [DETAILS["servers"][0]]
        assert served == {name: part for name, part in OPENAPI.items() if name != "servers"}


def test_the_document_is_valid_and_names_only_this_machine() -> None:
    OpenAPIV31SpecValidator(OPENAPI).validate()
    assert [server["url"] for server in OPENAPI["servers"]] == ["http://127.0.0.1:8080"]
    assert COMMITTED.read_text().count("://") == 1


def test_examples_are_what_their_schemas_describe() -> None:
    number = 0
    for content in contents():
        if "example" in content:
            schema = {"components": OPENAPI["components"], **content["schema"]}
            OAS31Validator(schema).validate(content["example"])
            number += 1
    assert number > 100


def contents() -> Iterator[dict[str, Any]]:
    """Yield every body of a request or response."""
    for operation in OPERATIONS.values():
        for part in (operation.get("requestBody", {}), *operation["responses"].values()):
            yield from part.get("content", {}).values()


def nodes(part: Any) -> Iterator[dict[str, Any]]:
    """Yield every object of a part of the document, but of its examples."""
    if isinstance(part, dict):
        yield part
        for name, inner in part.items():
            if name not in {"example", "examples"}:
                yield from nodes(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from nodes(inner)


def test_every_bound_and_format_is_a_keyword_of_json_schema() -> None:
    for node in nodes(OPENAPI):
        assert not {"ge", "gt", "le", "lt", "itemSchema", "anyOf"} & node.keys(), node


def test_every_integer_has_a_width_that_holds_its_bounds() -> None:
    integers = [node for node in nodes(OPENAPI) if node.get("type") == "integer"]
    assert len(integers) > 100
    for node in integers:
        assert isinstance(node.get("maximum", 0), int)
        assert node["format"] == ("int32" if node.get("maximum", 2**63) < 2**31 else "int64")
    names = ["Item.version", "JobUsage.input_tokens", "ItemVersion.version"]
    assert [FIELDS[name]["format"] for name in names] == ["int64"] * 3


def test_every_union_is_of_objects_with_a_tag_or_of_one_schema_and_null() -> None:
    unions = [node for node in nodes(OPENAPI) if "oneOf" in node]
    tagged = [node for node in unions if "discriminator" in node]
    assert {"type": "null"} not in [part for node in tagged for part in node["oneOf"]]
    for node in tagged:
        tag = node["discriminator"]["propertyName"]
        for reference in node["discriminator"]["mapping"].values():
            schema = SCHEMAS[reference.rsplit("/", 1)[1]]
            assert tag in schema["required"]
    for node in unions:
        if node not in tagged:
            assert len(node["oneOf"]) == 2
            assert node["oneOf"][1] == {"type": "null"}
    assert [name for name, node in SCHEMAS.items() if node in tagged] == [
        "BatchOperation",
        "JobResult",
    ]


def test_every_schema_has_a_readable_name_and_a_description() -> None:
    for name, schema in SCHEMAS.items():
        assert re.fullmatch(r"([A-Z][a-z]+)+", name)
        assert schema["description"], name
        assert "title" not in schema, name


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


def test_every_failure_is_a_problem_document() -> None:
    for name, operation in OPERATIONS.items():
        failures = {s: r for s, r in operation["responses"].items() if s[0] in "45"}
        for status, response in failures.items():
            assert response["content"][MEDIA_TYPE]["schema"] == PROBLEM, (name, status)
            assert ("Retry-After" in response["headers"]) is (status in {"429", "503"})
        expected = {"500", "503"}
        if "health" not in operation["tags"]:
            expected |= {"401", "403", "429"}
        if not {"health", "metrics"} & set(operation["tags"]):
            expected.add("422")
        if "requestBody" in operation:
            expected |= {"400", "413"}
        assert expected <= failures.keys(), name


def test_every_operation_is_described() -> None:
    tags = {tag["name"] for tag in OPENAPI["tags"] if tag["description"]}
    for name, operation in OPERATIONS.items():
        is_open = "health" in operation["tags"]
        assert operation["security"] == ([] if is_open else [{"ApiKey": []}, {"Bearer": []}, {}])
        assert operation["description"].endswith("."), name
        assert operation["summary"] not in operation["description"]
        assert len(operation["tags"]) == 1
        assert set(operation["tags"]) <= tags, name
        for response in operation["responses"].values():
            assert response["headers"]["x-request-id"] == {"$ref": "#/components/headers/RequestId"}
        for parameter in operation.get("parameters", ()):
            assert parameter["description"], (name, parameter["name"])
            assert "anyOf" not in parameter["schema"], (name, parameter["name"])


def test_every_field_is_described() -> None:
    for name, field in FIELDS.items():  # schemas are described, too
        assert {"const", "$ref"} & field.keys() or field["description"], name


def test_the_problem_schema_is_complete() -> None:
    required = ["type", "title", "status", "detail", "code"]
    assert SCHEMAS["Problem"]["required"] == required
    assert SCHEMAS["FieldProblem"]["required"] == ["field", "detail"]
    assert not [name for name in SCHEMAS if "ValidationError" in name]
