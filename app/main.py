"""The HTTP application, put together."""

import asyncio
import gc
import multiprocessing
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from app import docs, health
from app.auth.access import Rates
from app.auth.authenticator import Authenticator
from app.batch.router import router as batch_router
from app.clock import Clock
from app.config import Settings
from app.http import problems
from app.http.openapi import DETAILS, DescribedApp
from app.http.request_context import RequestContext
from app.jobs_router import router as jobs_router
from app.logging import configure_logging
from app.managers.router import router as managers_router
from app.mcp.http import ROUTES as MCP_ROUTES
from app.mcp.http import running_mcp
from app.prompts.router import router as prompts_router
from app.providers.embedder import Embedder
from app.resources import open_resources
from app.search.router import router as search_router
from app.store.router import router as store_router
from app.threads.router import router as threads_router
from app.tools.router import router as tools_router
from app.usage_counter import record_usage

DESCRIPTION = (
    "Long-term memory for LLM agents: put, get and search memories by namespace. "
    "MCP clients connect to `/mcp`, which speaks that protocol and is not described here."
)


ROUTERS = (
    # Routes are tried one after another: those that agents wait for come first.
    store_router,
    prompts_router,
    search_router,
    batch_router,
    jobs_router,
    managers_router,
    threads_router,
    tools_router,
)


def create_app(
    settings: Settings | None = None,
    *,
    embedder: Embedder | None = None,
    clock: Clock | None = None,
) -> FastAPI:
    """Return the application; `embedder` and `clock` replace the configured ones in tests."""
    chosen = settings or Settings()

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[Mapping[str, Any]]:
        configure_logging(chosen)
        async with (
            open_resources(chosen, embedder=embedder, clock=clock) as resources,
            record_usage(resources.usage, resources.database),
            running_mcp(resources) as mcp,
        ):
            keep_pauses_short()
            end_with_parent()
            yield {
                "resources": resources,
                "authenticator": Authenticator(
                    resources.database,
                    resources.clock,
                    Rates(chosen.requests_per_minute, chosen.jobs_per_minute),
                ),
                "mcp": mcp,
            }

    app = DescribedApp(
        title="memoryd",
        version="1",
        summary="Long-term memory for LLM agents",
        description=DESCRIPTION,
        lifespan=lifespan,
        **DETAILS,
        strict_content_type=False,
        # FastAPI's own pages load scripts from a CDN.
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
    )
    _add_routes(app)
    problems.install(app)
    app.add_middleware(RequestContext)
    return app


def keep_pauses_short() -> None:
    """Set the interpreter up so that nothing stops the event loop for long.

    What was imported and opened lives as long as the process. Left to the collector, a full
    collection stops every request for some sixty milliseconds, over and over. And threads that
    compute would hold up the event loop for 5 ms at a time.
    """
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(0.001)


def end_with_parent() -> None:
    """Shut a process of several servers down when the one that started it is gone."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        loop = asyncio.get_running_loop()
        loop.add_reader(parent.sentinel, _end, loop, parent.sentinel)


def _end(loop: asyncio.AbstractEventLoop, sentinel: int) -> None:
    loop.remove_reader(sentinel)
    signal.raise_signal(signal.SIGTERM)


def _add_routes(app: FastAPI) -> None:
    for router in ROUTERS:
        app.include_router(router, prefix="/v1")
    for router in (health.probes, health.metrics, docs.router):
        app.include_router(router)
    app.routes.extend(MCP_ROUTES)
