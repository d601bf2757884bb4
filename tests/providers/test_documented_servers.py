"""Every block of the page on model servers, sent to scripted servers in place of the real ones."""

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from app.config import Settings
from app.provider_settings import read_providers
from app.providers.embedder import create_embedder
from app.providers.llm import Message, Request, create_llm
from app.providers.provider import Provider
from tests.support.llm_server import llm_server
from tests.support.openai_server import openai_server

PAGE = Path(__file__).parents[2] / "docs/howto/operate/model-servers.md"
BLOCKS = re.findall(r"```toml\n(.*?)```\n\n```bash\n(.*?)```", PAGE.read_text(), re.DOTALL)
ROUTES = {"chat": "/chat/completions", "responses": "/responses"}
HELLO = Request("", (Message("user", "Hello"),))

_EXPORT = re.compile(r'^export (\w+)="?(.*?)"?$', re.MULTILINE)
_HOST = re.compile(r'(base_url = ")https?://[^/"]+')


def place_of(block: tuple[str, str]) -> str:
    return block[0].partition("]")[0].removeprefix("[providers.")


@pytest.mark.parametrize("block", BLOCKS, ids=place_of)
async def test_a_documented_server_is_asked_as_written(
    block: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, exports = block
    path = tmp_path / "providers.toml"
    path.write_text(table)
    monkeypatch.setenv("MEMORYD_PROVIDERS_FILE", str(path))
    for name, value in _EXPORT.findall(exports):
        monkeypatch.setenv(name, value)
    for name in re.findall(r'api_key_env = "(\w+)"', table):
        monkeypatch.setenv(name, f"the-key-in-{name.lower()}")
    settings = Settings()
    documented = read_providers(settings)
    async with llm_server() as models, openai_server() as embeddings:
        if settings.llm:
            path.write_text(_HOST.sub(rf"\1{models.url}", table))
            llm = create_llm(settings.llm, read_providers(settings))
            await llm.complete(HELLO)
            await llm.aclose()
            provider = documented[settings.llm.partition(":")[0]]
            route = "/v1/messages" if provider.kind == "anthropic" else ROUTES[provider.api]
            [sent] = models.requests
            assert sent.path == target(provider, route)
            assert sent.model == settings.llm.partition(":")[2]
            assert {**sent.headers, **expected_headers(provider)} == sent.headers
        if not settings.embedding.startswith("local:"):
            host = embeddings.base_url.removesuffix("/v1")
            path.write_text(_HOST.sub(rf"\1{host}", table))
            embedder = create_embedder(
                settings.embedding, read_providers(settings), cache_dir=tmp_path, dimensions=64
            )
            assert embedder is not None
            await embedder.embed(["tea"])
            await embedder.aclose()
            provider = documented[settings.embedding.partition(":")[0]]
            head = embeddings.heads[0]
            assert head.startswith(f"post {target(provider, '/embeddings')} ".lower())
            for name, value in expected_headers(provider).items():
                assert f"{name}: {value}\r\n".lower() in head


def target(provider: Provider, route: str) -> str:
    query = "&".join(f"{name}={value}" for name, value in provider.query.items())
    return urlsplit(provider.address).path + route + (f"?{query}" if query else "")


def expected_headers(provider: Provider) -> dict[str, str]:
    if provider.api_key is None:
        return {}
    if provider.api_key_header:
        return {provider.api_key_header: provider.api_key}
    return {"authorization": f"Bearer {provider.api_key}"}


def test_the_page_has_a_block_for_each_common_server() -> None:
    assert len(BLOCKS) >= 15
