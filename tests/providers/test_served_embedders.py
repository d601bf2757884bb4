"""A service whose embeddings come from an OpenAI-compatible server."""

import pytest

from app.config import Settings
from app.main import create_app
from tests.support.app import Store, running
from tests.support.openai_server import Reply, openai_server

USERS = ["users"]


async def test_the_sdks_own_variables_and_the_providers_dimensions_are_used(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with openai_server(dimensions=32) as provider:
        monkeypatch.setenv("OPENAI_API_KEY", "a-key")
        monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
        settings = Settings(database_url=database_url, embedding="openai:scripted")
        async with running(create_app(settings)) as client:
            store = Store(client)
            await store.put(USERS, "food", {"text": "alice likes ramen"}, index=["text"])
            [found] = await store.search(USERS, query="alice likes ramen")
            assert found["key"] == "food"
            assert 0.7 < found["score"] < 0.8
            provider.script.append(Reply(status=401, body=b'{"error": {"message": "bad key"}}'))
            body = {"query": "something new"}
            refused = await store.call("POST", "/v1/store/items/search", status=503, json=body)
    assert refused.json()["code"] == "embedding_failed"
    assert all(request["model"] == "scripted" for request in provider.requests)


async def test_a_server_starts_again_while_its_provider_is_away(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with openai_server(dimensions=32) as provider:
        monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
        settings = Settings(database_url=database_url, embedding="openai:scripted")
        async with running(create_app(settings)) as client:
            await Store(client).put(USERS, "food", {"text": "alice likes ramen"}, index=["text"])
        provider.refuse = lambda _request: Reply(status=500)
        async with running(create_app(settings)) as client:
            store = Store(client)
            await store.put(USERS, "pet", {"text": "alice has a cat"})
            assert (await store.get(USERS, "pet"))["embedded"] is False
            body = {"query": "a cat", "mode": "text"}
            found = await store.call("POST", "/v1/store/items/search", status=200, json=body)
            assert [item["key"] for item in found.json()["items"]] == ["pet"]
            provider.refuse = lambda _request: None
            assert (await store.search(USERS, query="ramen"))[0]["key"] == "food"
