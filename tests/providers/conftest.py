from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.providers.embedder import BatchingEmbedder, Embedder, FakeEmbedder
from app.providers.local_embedder import LocalEmbedder
from app.providers.openai_embedder import OpenAIEmbedder
from app.providers.provider import Provider
from tests.support.llm_server import LLMServer, llm_server
from tests.support.openai_server import OpenAIServer, openai_server


@pytest.fixture(scope="session")
def model_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture
async def local(model_cache: Path) -> AsyncIterator[LocalEmbedder]:
    embedder = LocalEmbedder(model_cache)
    yield embedder
    await embedder.aclose()


@pytest.fixture
async def server() -> AsyncIterator[LLMServer]:
    """A scripted model server."""
    async with llm_server() as running:
        yield running


@pytest.fixture
async def embeddings() -> AsyncIterator[OpenAIServer]:
    async with openai_server() as running:
        yield running


@pytest.fixture
async def remote(embeddings: OpenAIServer) -> AsyncIterator[OpenAIEmbedder]:
    embedder = OpenAIEmbedder(
        "test-model", Provider(base_url=embeddings.base_url), max_retries=0, timeout=5
    )
    yield embedder
    await embedder.aclose()


@pytest.fixture(params=["fake", "local", "remote", "batching"])
def any_embedder(
    request: pytest.FixtureRequest, local: LocalEmbedder, remote: OpenAIEmbedder
) -> Embedder:
    every: dict[str, Embedder] = {
        "fake": FakeEmbedder(),
        "local": local,
        "remote": remote,
        "batching": BatchingEmbedder(FakeEmbedder()),
    }
    return every[request.param]
