"""The application in process, with its lifespan run and a client in front."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import httpx2
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from app.resources import Resources
from app.worker.process import run_worker


@asynccontextmanager
async def running(app: FastAPI, *, worker: bool = False) -> AsyncIterator[httpx2.AsyncClient]:
    """Yield a client of the started application; with `worker`, jobs are done in this process."""
    async with running_with_resources(app) as (client, resources), AsyncExitStack() as stack:
        if worker:
            await stack.enter_async_context(doing_jobs(resources))
        yield client


@asynccontextmanager
async def running_with_resources(
    app: FastAPI,
) -> AsyncIterator[tuple[httpx2.AsyncClient, Resources]]:
    """Yield a client of the started application, and the resources behind it."""
    async with app.router.lifespan_context(app) as lifespan:
        state = dict(lifespan or {})

        async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, "state": state}, receive, send)

        transport = httpx2.ASGITransport(app=with_state)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            yield client, state["resources"]


@asynccontextmanager
async def doing_jobs(resources: Resources) -> AsyncIterator[None]:
    """Run a worker in this process until the end of the block."""
    working = asyncio.create_task(run_worker(resources))
    try:
        yield
    finally:
        working.cancel()
        with suppress(asyncio.CancelledError):
            await working


class Store:
    """The store's routes in few words; every call asserts the status it expects."""

    def __init__(self, client: httpx2.AsyncClient, headers: dict[str, str] | None = None) -> None:
        self.client = client
        self.headers = headers or {}

    async def put(
        self,
        namespace: list[str],
        key: str,
        value: dict[str, Any],
        *,
        status: int = 204,
        **more: Any,
    ) -> httpx2.Response:
        body = {"namespace": namespace, "key": key, "value": value, **more}
        return await self.call("PUT", "/v1/store/items", status=status, json=body)

    async def get(self, namespace: list[str], key: str, **query: Any) -> Any:
        params = {"namespace": ".".join(namespace), "key": key, **query}
        response = await self.call("GET", "/v1/store/items", status=200, params=params)
        return response.json()

    async def delete(self, namespace: list[str], key: str) -> None:
        body = {"namespace": namespace, "key": key}
        await self.call("DELETE", "/v1/store/items", status=204, json=body)

    async def search(self, prefix: list[str], **body: Any) -> list[dict[str, Any]]:
        response = await self.call(
            "POST", "/v1/store/items/search", status=200, json={"namespace_prefix": prefix, **body}
        )
        items: list[dict[str, Any]] = response.json()["items"]
        return items

    async def namespaces(self, **body: Any) -> list[list[str]]:
        response = await self.call("POST", "/v1/store/namespaces", status=200, json=body)
        found: list[list[str]] = response.json()["namespaces"]
        return found

    async def versions(self, namespace: list[str], key: str) -> list[dict[str, Any]]:
        params = {"namespace": ".".join(namespace), "key": key}
        response = await self.call("GET", "/v1/store/items/versions", status=200, params=params)
        found: list[dict[str, Any]] = response.json()["versions"]
        return found

    async def batch(self, *operations: dict[str, Any], atomic: bool = True) -> list[Any]:
        body = {"operations": operations, "atomic": atomic}
        response = await self.call("POST", "/v1/store/batch", status=200, json=body)
        results: list[Any] = response.json()["results"]
        return results

    async def call(self, method: str, path: str, *, status: int, **request: Any) -> httpx2.Response:
        headers = {**self.headers, **request.pop("headers", {})}
        response = await self.client.request(method, path, headers=headers, **request)
        assert response.status_code == status, response.text
        return response
