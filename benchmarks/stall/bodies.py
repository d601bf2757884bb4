"""Attacks with large bodies, and requests for large answers."""

import asyncio
from typing import Any

from benchmarks.stall.schemas import MESSAGES, count_answers
from benchmarks.stall.target import Attack, Target

MIB = 1 << 20
SEARCH = "/v1/store/items/search"
JSON = {"content-type": "application/json"}


def arrays(size: int) -> bytes:
    """Return JSON of this size that is almost all empty arrays."""
    return b'{"operations":[' + b"[]," * (size // 3) + b"[]]}"


async def anonymous(target: Target) -> str:
    """Send 32 MiB of `[]` without a key, four at a time."""
    headers = {**JSON, "x-api-key": ""}

    async def one(path: str) -> str:
        return await target.send("POST", path, content=arrays(32 * MIB), headers=headers)

    return count_answers(await asyncio.gather(*map(one, [SEARCH, "/v1/store/batch"] * 2)))


async def known(target: Target) -> str:
    """With a key, send as much as each route takes, and more."""
    paths = ("/v1/store/batch", SEARCH, "/v1/jobs/extract", "/v1/tools/search_memory", "/mcp")

    async def one(path: str, size: int) -> str:
        return await target.send("POST", path, content=arrays(size), headers=JSON)

    sizes = (32 * MIB, 8 * MIB - 100, MIB // 4 - 100)
    return count_answers(
        await asyncio.gather(*(one(path, size) for path in paths for size in sizes))
    )


async def operands(target: Target) -> str:
    """Filter by a million operands, by as many as a search takes, and in batches."""
    answers = []
    for number in (1_000_000, 100_000, 19_000):
        search = {"namespace_prefix": ["a"], "filter": {"n": {"$in": list(range(number))}}}
        answers.append(await target.send("POST", SEARCH, json=search))
        batch = {"operations": [{"op": "search", **search}]}
        answers.append(await target.send("POST", "/v1/store/batch", json=batch))
    return count_answers(answers)


async def numbers(target: Target) -> str:
    """Store numbers that take fifty times their text in the database, and read them."""
    value = ('{"n":[' + ",".join(["1e308"] * 150_000) + "]}").encode()
    put = b'{"namespace":["attack"],"key":"n","value":' + value + b"}"
    stored = await target.send("PUT", "/v1/store/items", content=put, headers=JSON)
    read = await target.send("GET", "/v1/store/items?namespace=attack&key=n")
    return f"put {stored}, get {read}"


async def fill(target: Target, items: int) -> None:
    """Store items of almost 1 MiB."""
    for number in range(items):
        await target.send(
            "PUT",
            "/v1/store/items",
            json={
                "namespace": ["attack", "big"],
                "key": f"k{number}",
                "value": {"text": "x" * 1_000_000, "name": "ramen"},
                "index": ["name"],
            },
        )


async def results(target: Target) -> str:
    """Run batches of 1,000 searches that each return two items of 1 MiB, eight at a time."""
    await fill(target, 2)
    search = {"op": "search", "namespace_prefix": ["attack", "big"], "limit": 2}
    batch = {"operations": [search] * 1000}
    return count_answers(
        await asyncio.gather(
            *(target.send("POST", "/v1/store/batch", json=batch) for _ in range(8))
        )
    )


async def pages(target: Target) -> str:
    """Ask for pages of 1,000 items of 1 MiB, forty at a time."""
    await fill(target, 12)
    search = {"namespace_prefix": ["attack", "big"], "limit": 1000}
    return count_answers(
        await asyncio.gather(*(target.send("POST", SEARCH, json=search) for _ in range(40)))
    )


async def jobs(target: Target) -> str:
    """List jobs whose results are large, ten times at once."""
    body: dict[str, Any] = {"messages": MESSAGES * 3}
    submitted = await asyncio.gather(
        *(
            target.send("POST", "/v1/jobs/extract", json=body, headers={"prefer": "wait=60"})
            for _ in range(30)
        )
    )
    listed = await asyncio.gather(*(target.send("GET", "/v1/jobs?limit=200") for _ in range(10)))
    return f"jobs {count_answers(submitted)}; lists {count_answers(listed)}"


ATTACKS = (
    Attack("32 MiB of [] without a key", anonymous),
    Attack("large bodies with a key", known),
    Attack("$in with a million operands", operands),
    Attack("numbers of 300 digits", numbers),
    Attack("batches of large results", results),
    Attack("pages of large items", pages),
    Attack("job lists", jobs, model="large"),
)
