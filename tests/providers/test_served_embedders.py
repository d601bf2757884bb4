"""A service whose embeddings come from an OpenAI-compatible server."""

import pytest

from app.config import Settings
from app.indexing.formats import EmbeddingModelMismatchError
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


async def test_queries_and_passages_have_forms_of_their_own(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with openai_server(dimensions=32) as provider:
        monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
        monkeypatch.setenv("MEMORYD_EMBEDDING_QUERY_PREFIX", "ask: ")
        monkeypatch.setenv("MEMORYD_EMBEDDING_PASSAGE_PREFIX", "tell:\n")
        monkeypatch.setenv("MEMORYD_EMBEDDING_PASSAGE_INPUT_TYPE", "document")
        settings = Settings(database_url=database_url, embedding="openai:scripted")
        async with running(create_app(settings)) as client:
            store = Store(client)
            await store.put(USERS, "food", {"text": "ramen"}, index=["text"])
            for _ in range(2):
                await store.search(USERS, query="ramen")
            await store.put(USERS, "same", {"text": "ramen"}, index=["text"])
        sent = [(one["input"], one.get("input_type")) for one in provider.requests]
        assert sent == [
            (["tell:\ndimensions"], "document"),
            (["tell:\nramen"], "document"),
            (["ask: ramen"], None),
        ]
        other_query = settings.model_copy(update={"embedding_query_prefix": "seek: "})
        async with running(create_app(other_query)) as client:
            assert len(await Store(client).search(USERS, query="ramen")) == 2
        for change in ("embedding_passage_prefix", "embedding_passage_input_type"):
            other = settings.model_copy(update={change: None})
            with pytest.raises(EmbeddingModelMismatchError) as caught:
                async with running(create_app(other)):
                    pass
            assert 'openai:scripted passage_prefix="tell:\\n" passage_input' in str(caught.value)
            assert "Run `memoryd reindex`" in str(caught.value)
            assert "and the prefix and input type of passages as they were" in str(caught.value)
