"""Attacks with JSON Schemas, patterns, and replies that are checked against them."""

import asyncio
from typing import Any

from benchmarks.stall.target import Attack, Target

MESSAGES = [{"role": "user", "content": "I love ramen."}]
DEPTHS = (45, 30, 22, 16, 10)


def exponential(depth: int) -> dict[str, Any]:
    """Return a schema that evaluates one sub-schema twice at every level of the content."""
    definitions: dict[str, Any] = {f"d{depth}": {"type": "object"}}
    for level in range(depth):
        twice = [{"$ref": f"#/$defs/d{level + 1}"}] * 2
        definitions[f"d{level}"] = {"type": "object", "properties": {"p": {"allOf": twice}}}
    return {"$defs": definitions, "$ref": "#/$defs/d0", "type": "object"}


def nested(depth: int) -> Any:
    """Return content of this depth."""
    value: Any = {"end": True}
    for _ in range(depth):
        value = {"p": value}
    return value


def manager(schema: dict[str, Any], default: Any = None) -> dict[str, Any]:
    """Return a manager with one kind and, if given, a default that its schema must allow."""
    return {"kinds": [thing(schema)], **({} if default is None else {"default": default})}


def thing(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a kind with a single document."""
    return {"name": "thing", "schema": schema, "description": "A thing.", "singleton": True}


async def extract(target: Target) -> str:
    """Submit extractions with an inline manager."""
    answers = []
    for depth in DEPTHS:
        body = {"messages": MESSAGES, "manager_config": manager(exponential(depth), nested(depth))}
        answers.append(f"{depth}: {await target.send('POST', '/v1/jobs/extract', json=body)}")
    return ", ".join(answers)


async def store(target: Target) -> str:
    """Store managers."""
    answers = []
    for depth in DEPTHS:
        body = manager(exponential(depth), nested(depth))
        answers.append(f"{depth}: {await target.send('PUT', '/v1/managers/attack', json=body)}")
    return ", ".join(answers)


async def tool(target: Target) -> str:
    """Make a tool check content against a schema in the request."""
    answers = []
    for depth in DEPTHS:
        body = {
            "namespace": ["attack"],
            "kind": thing(exponential(depth)),
            "arguments": {"action": "create", "content": nested(depth)},
        }
        answer = await target.send("POST", "/v1/tools/manage_memory", json=body)
        answers.append(f"{depth}: {answer}")
    return ", ".join(answers)


async def reply(target: Target) -> str:
    """Let a model reply with content that takes long to check against its schema."""
    wait = {"prefer": "wait=30"}
    answers = []
    for depth in DEPTHS:
        body = {
            "messages": MESSAGES,
            "namespace": ["attack"],
            "manager_config": manager(exponential(depth)),
        }
        answer = await target.send("POST", "/v1/jobs/extract", json=body, headers=wait)
        answers.append(f"{depth}: {answer}")
    return ", ".join(answers)


async def patterns(target: Target) -> str:
    """Send schemas whose patterns take much time and memory to compile, never the same twice."""

    async def one(number: int) -> str:
        properties = {
            f"p{n}": {"type": "string", "pattern": f"^(?:[a-z{number}]{{0,{900 + n}}}){{0,{9}}}$"}
            for n in range(60)
        }
        schema = {"type": "object", "properties": properties}
        default = {f"p{n}": "a" * 50 for n in range(60)}
        body = {"messages": MESSAGES, "manager_config": manager(schema, default)}
        return await target.send("POST", "/v1/jobs/extract", json=body)

    return count_answers(await asyncio.gather(*map(one, range(20))))


async def edits(target: Target) -> str:
    """Let a model change a memory with 20,000 edits."""
    await target.send(
        "PUT",
        "/v1/store/items",
        json={
            "namespace": ["attack", "edits"],
            "key": "m",
            "value": {"kind": "memory", "content": {"content": "I love ramen."}},
        },
    )
    body = {"messages": MESSAGES, "namespace": ["attack", "edits"]}
    return await target.send("POST", "/v1/jobs/extract", json=body, headers={"prefer": "wait=60"})


def count_answers(answers: list[str]) -> str:
    """Return the distinct answers, each with its count."""
    return ", ".join(f"{answers.count(one)} x {one}" for one in sorted(set(answers)))


ATTACKS = (
    Attack("exponential schema: extract", extract, model="large"),
    Attack("exponential schema: managers", store),
    Attack("exponential schema: tools", tool),
    Attack("exponential schema: a model's reply", reply, model="nested"),
    Attack("patterns in schemas", patterns, model="large"),
    Attack("20,000 edits in a reply", edits, model="edits"),
)
