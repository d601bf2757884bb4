"""A real server whose embeddings come from an OpenAI-compatible one."""

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.openai_server import Reply, openai_server
from tests.support.server import Server, serving

pytestmark = pytest.mark.slow

SEARCH = {"query": "alice likes ramen", "namespace_prefix": ["users"]}


async def test_the_sdks_own_variables_and_the_providers_dimensions_are_used(
    database_url: str, tmp_path: Path
) -> None:
    async with openai_server(dimensions=32) as provider:
        environment = {
            "MEMORYD_DATABASE_URL": database_url,
            "MEMORYD_EMBEDDING": "openai:scripted",
            "OPENAI_API_KEY": "a-key",
            "OPENAI_BASE_URL": provider.base_url,
        }
        started = serving(tmp_path / "log", environment=environment)
        server = await asyncio.to_thread(started.__enter__)
        try:
            await _use(server)
            provider.script.extend([Reply(status=401, body=b'{"error": {"message": "bad key"}}')])
            refused = await _call(server, "POST", "/search", {"query": "something new"})
        finally:
            await asyncio.to_thread(started.__exit__, None, None, None)
    assert (refused.status_code, refused.json()["code"]) == (503, "embedding_failed")
    assert all(request["model"] == "scripted" for request in provider.requests)


async def _use(server: Server) -> None:
    item = {"namespace": ["users"], "key": "food", "value": {"text": "alice likes ramen"}}
    written = await _call(server, "PUT", "", {**item, "index": ["text"]})
    assert written.status_code == 204
    found = (await _call(server, "POST", "/search", SEARCH)).json()["items"]
    assert found[0]["key"] == "food"
    assert 0.7 < found[0]["score"] < 0.8


async def _call(server: Server, method: str, path: str, body: dict[str, Any]) -> httpx2.Response:
    async with httpx2.AsyncClient(base_url=server.url) as client:
        return await client.request(method, f"/v1/store/items{path}", json=body)
