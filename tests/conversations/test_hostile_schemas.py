"""Schemas that once froze the process, sent to each route that takes content."""

import asyncio
import time
from typing import Any

import httpx2
import pytest

from tests.conversations.test_json_schema import TWICE, nested, schema_of

SCHEMA = schema_of({"properties": {"a": {"allOf": TWICE}}})
KINDS = [{"name": "k", "schema": SCHEMA}]
MESSAGES = [["user", "Hello"]]


async def quickly(answer: Any) -> httpx2.Response:
    started = time.process_time()
    response: httpx2.Response = await asyncio.wait_for(answer, 20)
    assert time.process_time() - started < 2
    return response


async def test_managers_and_jobs_may_have_a_schema_that_doubles(
    client: httpx2.AsyncClient,
) -> None:
    config = {"kinds": KINDS, "default": nested(50), "namespace": ["x"]}
    put = await quickly(client.put("/v1/managers/doubling", json=config))
    assert put.status_code == 201
    call = {"manager": "doubling", "arguments": {"content": nested(55)}}
    answer = (await quickly(client.post("/v1/tools/manage_memory", json=call))).json()
    assert answer["content"].startswith("created memory")
    body = {"manager_config": {**config, "strategy": "verbatim"}, "messages": MESSAGES}
    assert (await quickly(client.post("/v1/jobs/extract", json=body))).status_code == 202


@pytest.mark.parametrize(
    ("kind", "default", "problem"),
    [
        (SCHEMA, nested(62) | {"b": [{}]}, None),
        (
            {"type": "object", "patternProperties": {"[ab]*a[ab]{200}[^ab]": {}}},
            {"ab" * 20_000: 1},
            "takes more than 30,000 checks",
        ),
        ({"type": "object", "unevaluatedProperties": False}, {}, 'use "additionalProperties"'),
    ],
)
async def test_a_schema_or_content_beyond_a_limit_is_refused(
    client: httpx2.AsyncClient, kind: dict[str, Any], default: Any, problem: str | None
) -> None:
    config = {"kinds": [{"name": "k", "schema": kind}], "default": default}
    put = await quickly(client.put("/v1/managers/limits", json=config))
    assert put.status_code == (201 if problem is None else 422)
    assert problem is None or problem in put.text.replace("\\", "")


async def test_finding_the_kinds_of_existing_memories_has_a_budget(
    client: httpx2.AsyncClient,
) -> None:
    node = {"properties": {"a": {"allOf": TWICE}}, "required": ["a"]}
    kinds = [{"name": f"k{n}", "schema": schema_of(node)} for n in range(20)]
    existing = [{"content": nested(40)} for _ in range(1_000)]
    body = {"manager_config": {"kinds": kinds}, "existing": existing, "messages": MESSAGES}
    refused = await quickly(client.post("/v1/jobs/extract", json=body))
    assert refused.status_code == 422
    [error] = refused.json()["errors"]
    assert (error["field"], "150,000 checks" in error["detail"]) == ("existing", True)
