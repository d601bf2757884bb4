"""Every body has limits: of its bytes, of its JSON values, and of each list, text, and integer."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx2
from fastapi.routing import iter_route_contexts

from app.auth.dependencies import GuardedRoute, body_of
from app.config import Settings
from app.http.messages import BodyMemory
from app.main import create_app
from app.schemas import MAX_MEMBERS, MIB, Body
from app.tools.service import MEMORY_TOOLS
from tests.support.routes import HIDDEN, REQUESTS

LARGEST = 8 * MIB

REQUESTED = {**REQUESTS, **HIDDEN}

BODIES = {
    route.operation_id: model
    for route in iter_route_contexts(create_app(Settings()).routes)
    if isinstance(route.original_route, GuardedRoute) and (model := body_of(route.dependant))
}


def queries(of: type[Body] = Body) -> Iterator[type[Body]]:
    yield of
    for subclass in of.__subclasses__():
        yield from queries(subclass)


def is_bounded_text(schema: dict[str, Any]) -> bool:
    if schema.keys() & {"enum", "const", "maxLength"} or schema.get("format") == "date-time":
        return True
    pattern = schema.get("pattern")
    return pattern is not None and not any(re.search(pattern, c * 100_000) for c in "a1.")


def is_bounded_integer(schema: dict[str, Any]) -> bool:
    return bool(schema.keys() & {"maximum", "exclusiveMaximum"}) and bool(
        schema.keys() & {"minimum", "exclusiveMinimum"}
    )


IS_BOUNDED: dict[str, Callable[[dict[str, Any]], bool]] = {
    "string": is_bounded_text,
    "integer": is_bounded_integer,
    "array": lambda schema: "maxItems" in schema,
    "object": lambda schema: (
        not isinstance(schema.get("additionalProperties"), dict) or "maxProperties" in schema
    ),
}
"""Free-form JSON is limited by its body's JSON values, and a fraction by its precision."""


def parts(schema: dict[str, Any], place: str) -> Iterator[tuple[str, Any]]:
    for keyword in ("anyOf", "oneOf", "allOf"):
        yield from ((place, part) for part in schema.get(keyword, ()))
    for name, member in schema.get("properties", {}).items():
        yield f"{place}.{name}", member
    yield f"{place}[]", schema.get("items")
    yield f"{place}.*", schema.get("additionalProperties")


def unbounded(schema: Any, place: str, definitions: dict[str, Any]) -> Iterator[str]:
    """Yield the places without a limit."""
    if not isinstance(schema, dict):
        return
    if name := schema.get("$ref", "").removeprefix("#/$defs/"):
        yield from unbounded(definitions.pop(name, None), name, definitions)
    kind = schema.get("type")
    if kind in IS_BOUNDED and not IS_BOUNDED[kind](schema):
        yield f"{place}: {kind}"
    for inner, part in parts(schema, place):
        yield from unbounded(part, inner, definitions)


# A filter as JSON text has the limits of a filter; some providers refuse a large maximum length.
JSON_TEXTS = {"SearchMemoriesArguments.filter: string"}


def test_every_list_text_and_integer_of_a_request_has_a_limit() -> None:
    models = set(queries())
    assert models >= {*BODIES.values(), *(tool.arguments for tool in MEMORY_TOOLS)}
    for model in models:
        schema = model.model_json_schema()
        without_limit = set(unbounded(schema, model.__name__, schema.get("$defs", {})))
        assert without_limit <= JSON_TEXTS
        assert model.body_limit.values <= 100_000
        assert len(model.model_fields) <= MAX_MEMBERS / 2


async def test_a_body_is_read_up_to_its_limit_and_no_further(client: httpx2.AsyncClient) -> None:
    for operation, model in BODIES.items():
        limit = model.body_limit.max_bytes(Settings())
        assert limit <= LARGEST
        sent = 0

        async def endless() -> AsyncIterator[bytes]:
            nonlocal sent
            while sent < 2 * LARGEST:
                sent += 16_384
                yield b" " * 16_384

        method, path, *_ = REQUESTED[operation]
        response = await client.request(method, path, content=endless())
        assert response.status_code == 413, operation
        assert response.json()["code"] == "body_too_large"
        assert f"{limit:,} bytes" in response.json()["detail"]
        assert sent <= limit + 16_384


async def test_a_body_with_too_many_json_values_is_refused_before_it_is_parsed(
    client: httpx2.AsyncClient,
) -> None:
    for operation, model in BODIES.items():
        method, path, *_ = REQUESTED[operation]
        values = model.body_limit.values
        content = b'{"value": [' + b"[]," * values + b"[]]}"
        response = await client.request(method, path, content=content)
        assert response.status_code == 422, operation
        assert f"more than {values:,} JSON values" in response.json()["detail"]


async def test_of_many_mistakes_the_first_hundred_are_listed(client: httpx2.AsyncClient) -> None:
    place = {"namespace": ["a"], "key": "k", "value": {}}
    body = {**place, **{f"member{number}": 0 for number in range(50_000)}}
    problem = (await client.put("/v1/store/items", json=body)).json()
    assert problem["detail"].startswith("body: has 50,003 members")
    for messages, listed, rest in ((150, 100, "149 more"), (2_000, 100, "1,999 more")):
        problem = (
            await client.post("/v1/jobs/extract", json={"messages": [{"id": []}] * messages})
        ).json()
        assert len(problem["errors"]) == listed
        assert rest in problem["detail"]


async def test_large_bodies_share_a_budget_of_memory(client: httpx2.AsyncClient) -> None:
    go_on = asyncio.Event()
    waiting = asyncio.Semaphore(0)

    async def seven_mebibytes() -> AsyncIterator[bytes]:
        for _ in range(7):
            yield b" " * MIB
        waiting.release()
        await go_on.wait()
        yield b'{"operations": []}'

    async def send() -> int:
        return (await client.post("/v1/store/batch", content=seven_mebibytes())).status_code

    sent = [asyncio.create_task(send()) for _ in range(4)]
    for _ in sent:
        await waiting.acquire()
    refused = await client.post("/v1/store/batch", content=seven_mebibytes())
    assert refused.status_code == 503
    assert refused.json()["code"] == "overloaded"
    assert refused.headers["retry-after"]
    small = await client.post("/v1/store/batch", json={"operations": []})
    assert small.status_code == 200
    go_on.set()
    assert await asyncio.gather(*sent) == [200] * 4
    assert await send() == 200


def test_large_bodies_are_not_held_for_long_while_memory_is_scarce() -> None:
    memory, seen = BodyMemory(1 << 20), []
    with memory.share() as grow:
        for size in (1 << 18, 3 << 18):
            grow(size)
            seen.append(memory.is_scarce)
    assert [*seen, memory.is_scarce] == [False, True, False]
