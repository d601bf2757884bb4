"""The floor: the fewest lines of FastAPI and asyncpg that put, get and search.

    BARE_DATABASE_URL=... BARE_EMBEDDING=fake python -m benchmarks.bare PORT

One table with a primary key, no validation, no history, no terms, no vector index: none of the
features of a memory service itself. What memoryd does more shows as the difference.
"""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import orjson
import uvicorn
from fastapi import FastAPI, Request, Response
from pgvector.asyncpg import register_vector

from benchmarks.vectors import DIMENSIONS, embedding

POOL_SIZE = 16
SEPARATOR = "\x1f"
AFTER_SEPARATOR = "\x20"

SCHEMA = f"""
CREATE EXTENSION IF NOT EXISTS vector;
CREATE TABLE items (
    namespace text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    value jsonb NOT NULL,
    embedding vector({DIMENSIONS}) NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (namespace, key)
);
"""
PUT = """
INSERT INTO items (namespace, key, value, embedding) VALUES ($1, $2, $3, $4)
ON CONFLICT (namespace, key) DO UPDATE
SET value = excluded.value, embedding = excluded.embedding, updated_at = now()
"""
GET = "SELECT value::text, created_at, updated_at FROM items WHERE namespace = $1 AND key = $2"
SEARCH = """
SELECT namespace, key, value::text, created_at, updated_at, 1 - (embedding <=> $3) AS score
FROM items WHERE namespace >= $1 AND namespace < $2 ORDER BY embedding <=> $3 LIMIT $4
"""


async def _set_up_connection(connection: Any) -> None:
    await register_vector(connection)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    url = os.environ["BARE_DATABASE_URL"]
    first = await asyncpg.connect(url)
    await first.execute(SCHEMA)
    await first.close()
    app.state.embed = embedding(os.environ["BARE_EMBEDDING"])
    app.state.pool = await asyncpg.create_pool(
        url, min_size=POOL_SIZE, max_size=POOL_SIZE, init=_set_up_connection
    )
    yield
    await app.state.pool.close()


app = FastAPI(lifespan=_lifespan, openapi_url=None)


def _joined(labels: list[str]) -> str:
    return "".join(label + SEPARATOR for label in labels)


async def _rows(operations: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    values = [operation["value"] for operation in operations]
    vectors = await app.state.embed([value["text"] for value in values])
    return [
        (_joined(operation["namespace"]), operation["key"], orjson.dumps(value).decode(), vector)
        for operation, value, vector in zip(operations, values, vectors, strict=True)
    ]


def _item(namespace: list[str], key: str, record: Any) -> dict[str, Any]:
    return {
        "namespace": namespace,
        "key": key,
        "value": orjson.Fragment(record["value"]),
        "created_at": record["created_at"],
        "updated_at": record["updated_at"],
    }


def _json(content: object) -> Response:
    return Response(orjson.dumps(content), media_type="application/json")


@app.get("/healthz")
async def health() -> Response:
    """Report that the server is up."""
    return Response()


@app.put("/v1/store/items")
async def put_item(request: Request) -> Response:
    """Insert or replace one item."""
    (row,) = await _rows([orjson.loads(await request.body())])
    await app.state.pool.execute(PUT, *row)
    return Response(status_code=204)


@app.get("/v1/store/items")
async def get_item(namespace: str, key: str) -> Response:
    """Return one item or null."""
    labels = namespace.split(".")
    record = await app.state.pool.fetchrow(GET, _joined(labels), key)
    return _json(record and _item(labels, key, record))


@app.post("/v1/store/batch")
async def put_items(request: Request) -> Response:
    """Insert or replace many items in one transaction."""
    operations = orjson.loads(await request.body())["operations"]
    await app.state.pool.executemany(PUT, await _rows(operations))
    return _json({"results": [None] * len(operations)})


@app.post("/v1/store/items/search")
async def search_items(request: Request) -> Response:
    """Return the items under a prefix that are nearest to the query."""
    body = orjson.loads(await request.body())
    prefix = _joined(body["namespace_prefix"])
    end = prefix[:-1] + AFTER_SEPARATOR
    (target,) = await app.state.embed([body["query"]])
    records = await app.state.pool.fetch(SEARCH, prefix, end, target, body["limit"])
    found = []
    for record in records:
        labels = record["namespace"][:-1].split(SEPARATOR)
        found.append(_item(labels, record["key"], record) | {"score": record["score"]})
    return _json({"items": found})


if __name__ == "__main__":
    uvicorn.run(
        app,
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )
