"""The compared systems behind one interface: HTTP servers and LangGraph's store."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from langgraph.store.base import PutOp
from langgraph.store.postgres.aio import AsyncPostgresStore
from langgraph.store.postgres.base import PoolConfig, PostgresIndexConfig

from benchmarks import vectors
from benchmarks.client import HttpClient
from benchmarks.data import Item, Query

POOL_SIZE = 16

Found = list[tuple[tuple[str, ...], str]]


class System(Protocol):
    """A memory store under load; every read returns parsed values."""

    async def put(self, item: Item) -> None:
        """Store one item."""
        ...

    async def put_many(self, items: Sequence[Item]) -> None:
        """Store several items at once."""
        ...

    async def get(self, namespace: tuple[str, ...], key: str) -> dict[str, Any]:
        """Return an item's value; it must exist."""
        ...

    async def search(self, query: Query) -> Found:
        """Return the namespaces and keys of the found items, best first."""
        ...

    async def list_namespaces(
        self, prefix: tuple[str, ...] | None, max_depth: int | None, limit: int
    ) -> list[tuple[str, ...]]:
        """Return the first namespaces."""
        ...


@dataclass(frozen=True, slots=True)
class HttpSystem:
    """A server with LangGraph's HTTP API.

    `index` names the fields that puts embed; `search_fields` are sent with searches to memoryd.
    """

    client: HttpClient
    index: tuple[str, ...] | None = ("text",)
    search_fields: dict[str, Any] = field(default_factory=dict)

    def body(self, item: Item) -> dict[str, Any]:
        """Return the body of a put."""
        body: dict[str, Any] = {"namespace": item.namespace, "key": item.key, "value": item.value}
        body |= {} if self.index is None else {"index": self.index}
        return body | ({} if item.source is None else {"source": item.source})

    async def put(self, item: Item) -> None:
        """Store one item."""
        await self.client.call("PUT", "/v1/store/items", self.body(item))

    async def put_many(self, items: Sequence[Item]) -> None:
        """Store several items in one batch."""
        operations = [{"op": "put", **self.body(item)} for item in items]
        await self.client.call(
            "POST", "/v1/store/batch", {"operations": operations, "atomic": True}
        )

    async def get(self, namespace: tuple[str, ...], key: str) -> dict[str, Any]:
        """Return an item's value."""
        path = f"/v1/store/items?namespace={'.'.join(namespace)}&key={key}"
        item = await self.client.call("GET", path)
        value: dict[str, Any] = item["value"]
        return value

    async def search(self, query: Query) -> Found:
        """Search with the query's text."""
        body: dict[str, Any] = {
            "namespace_prefix": query.namespace,
            "query": query.text,
            "limit": query.limit,
            "offset": 0,
        }
        if query.filter is not None:
            body["filter"] = query.filter
        body |= self.search_fields
        answer = await self.client.call("POST", "/v1/store/items/search", body)
        return [(tuple(item["namespace"]), item["key"]) for item in answer["items"]]

    async def list_namespaces(
        self, prefix: tuple[str, ...] | None, max_depth: int | None, limit: int
    ) -> list[tuple[str, ...]]:
        """List the first namespaces."""
        body: dict[str, Any] = {"limit": limit, "offset": 0}
        body |= {} if prefix is None else {"prefix": prefix}
        body |= {} if max_depth is None else {"max_depth": max_depth}
        answer = await self.client.call("POST", "/v1/store/namespaces", body)
        return [tuple(namespace) for namespace in answer["namespaces"]]


@dataclass(frozen=True, slots=True)
class LangGraphSystem:
    """LangGraph's own store, called as its documentation shows, in this process."""

    store: AsyncPostgresStore

    async def put(self, item: Item) -> None:
        """Store one item."""
        await self.store.aput(item.namespace, item.key, item.value)

    async def put_many(self, items: Sequence[Item]) -> None:
        """Store several items in one batch."""
        await self.store.abatch([PutOp(item.namespace, item.key, item.value) for item in items])

    async def get(self, namespace: tuple[str, ...], key: str) -> dict[str, Any]:
        """Return an item's value."""
        item = await self.store.aget(namespace, key)
        assert item is not None
        return item.value

    async def search(self, query: Query) -> Found:
        """Search with the query's text."""
        found = await self.store.asearch(
            query.namespace, query=query.text, filter=query.filter, limit=query.limit
        )
        return [(item.namespace, item.key) for item in found]

    async def list_namespaces(
        self, prefix: tuple[str, ...] | None, max_depth: int | None, limit: int
    ) -> list[tuple[str, ...]]:
        """List the first namespaces."""
        return await self.store.alist_namespaces(prefix=prefix, max_depth=max_depth, limit=limit)


@asynccontextmanager
async def langgraph(
    database_url: str, embedding: str, fields: list[str]
) -> AsyncIterator[LangGraphSystem]:
    """Open LangGraph's store with a pool and its default vector index (HNSW, cosine)."""
    embed = vectors.embedding(embedding)

    async def as_lists(texts: Sequence[str]) -> list[list[float]]:
        rows: list[list[float]] = (await embed(texts)).tolist()
        return rows

    index = PostgresIndexConfig(dims=vectors.DIMENSIONS, embed=as_lists, fields=fields)
    async with AsyncPostgresStore.from_conn_string(
        database_url,
        pool_config=PoolConfig(min_size=POOL_SIZE, max_size=POOL_SIZE),
        index=index,
    ) as store:
        await store.setup()
        yield LangGraphSystem(store)
