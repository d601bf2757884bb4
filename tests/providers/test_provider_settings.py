"""Several providers, each with its own address and key, from variables and from a file."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from app.config import Settings
from app.errors import SettingError
from app.provider_settings import embedding_providers, read_providers
from app.providers.embedder import Embedder, create_embedder
from app.providers.llm import Message, Request, create_llm
from app.providers.provider import Provider
from app.resources import check_llm
from tests.support.llm_server import LLMServer, llm_server
from tests.support.openai_server import OpenAIServer, openai_server

HELLO = Request("", (Message("user", "Hello"),))
VALID = '[providers.a]\nkind = "openai"\n'


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(variable, raising=False)


def settings(tmp_path: Path, content: str = "", **changes: Any) -> Settings:
    """Return settings with a providers file."""
    path = tmp_path / "providers.toml"
    path.write_text(content)
    return Settings().model_copy(update={"providers_file": path, **changes})


@pytest.fixture
async def servers() -> AsyncIterator[tuple[LLMServer, LLMServer]]:
    async with AsyncExitStack() as stack:
        yield (
            await stack.enter_async_context(llm_server()),
            await stack.enter_async_context(llm_server()),
        )


async def ask(settings: Settings, *specs: str) -> None:
    providers = read_providers(settings)
    for spec in specs:
        llm = create_llm(spec, providers)
        await llm.complete(HELLO)
        await llm.aclose()


async def test_keys_of_providers_never_cross(
    servers: tuple[LLMServer, LLMServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = servers
    monkeypatch.setenv("NEBULA_KEY", " key-of-nebula\n")
    monkeypatch.setenv("OPENAI_BASE_URL", second.base_url_openai)  # the SDK itself reads it
    content = f"""
[providers.nebula]
kind = "openai"
base_url = "{first.base_url_openai}/openai/deployments/d"
api_key_env = "NEBULA_KEY"
api_key_header = "api-key"
query = {{ api-version = "2024-10-21" }}
headers = {{ X-Title = "memoryd" }}

[providers.quasar]
kind = "openai"
base_url = "{first.base_url_openai}"
api_key = "key-of-quasar"
api = "responses"

[providers.claude]
kind = "anthropic"
base_url = "{first.url}"
api_key = "key-of-claude"
api_key_header = "x-api-key"
"""
    given = settings(
        tmp_path,
        content,
        openai_base_url=second.base_url_openai,
        openai_api_key=SecretStr("key-of-openai"),
    )
    await ask(given, "nebula:m", "quasar:m", "claude:m", "openai:m", "nebula:n")
    named = [(sent.path, keys(sent.headers)) for sent in first.requests]
    deployment = "/v1/openai/deployments/d/chat/completions?api-version=2024-10-21"
    assert named == [
        (deployment, {"api-key": "key-of-nebula"}),
        ("/v1/responses", {"authorization": "Bearer key-of-quasar"}),
        ("/v1/messages", {"x-api-key": "key-of-claude"}),
        (deployment, {"api-key": "key-of-nebula"}),
    ]
    assert first.requests[0].headers["x-title"] == "memoryd"
    assert [keys(sent.headers) for sent in second.requests] == [
        {"authorization": "Bearer key-of-openai"}
    ]


def keys(headers: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if "key-of" in value or name in NAMES}


NAMES = {"authorization", "api-key", "x-api-key"}


@pytest.fixture
async def embeddings() -> AsyncIterator[OpenAIServer]:
    async with openai_server() as server:
        yield server


def embedder_of(given: Settings) -> Embedder:
    providers = embedding_providers(given, read_providers(given))
    found = create_embedder(given.embedding, providers, cache_dir=Path(), dimensions=64)
    assert found is not None
    return found


@pytest.mark.parametrize(("key", "sent"), [("key-of-vectors", "key-of-vectors"), (None, "none")])
async def test_embeddings_have_an_address_and_a_key_of_their_own(
    embeddings: OpenAIServer, tmp_path: Path, key: str | None, sent: str
) -> None:
    given = settings(
        tmp_path,
        openai_base_url="http://127.0.0.1:9/v1",
        openai_api_key=SecretStr("key-of-openai"),
        embedding="openai:m",
        embedding_base_url=embeddings.base_url,
        embedding_api_key=SecretStr(key) if key else None,
    )
    embedder = embedder_of(given)
    await embedder.embed(["one"])
    await embedder.aclose()
    assert embedder.name == "openai:m"
    assert f"authorization: bearer {sent}\r" in embeddings.heads[0]
    assert "key-of-openai" not in embeddings.heads[0]


async def test_embeddings_may_be_of_a_named_provider(
    embeddings: OpenAIServer, tmp_path: Path
) -> None:
    content = f'{VALID}base_url = "{embeddings.base_url}"\napi_key = "key-of-a"\n'
    embedder = embedder_of(settings(tmp_path, content, embedding="a:m"))
    await embedder.embed(["one"])
    await embedder.aclose()
    assert embedder.name == "a:m"
    assert "authorization: bearer key-of-a\r" in embeddings.heads[0]


def test_an_address_for_embeddings_that_would_not_be_used_is_refused(tmp_path: Path) -> None:
    own = {"embedding_base_url": "http://localhost:1/v1"}
    for content, embedding in [("", "local:all-MiniLM-L6-v2"), (VALID, "a:m")]:
        given = settings(tmp_path, content, embedding=embedding, **own)
        with pytest.raises(SettingError, match=f"EMBEDDING_BASE_URL: .* not for {embedding}"):
            embedding_providers(given, read_providers(given))


MISTAKES = {
    "[providers.a\n": "is not TOML: ",
    "[provider.a]\n": "provider is not a table [providers.NAME]",
    "providers = 1\n": "providers is not a table",
    '[providers.A]\nkind = "openai"\n': "no provider can be called 'A'; names have lower-case",
    '[providers.local]\nkind = "openai"\n': "no provider can be called 'local'",
    "[providers]\na = 1\n": "providers.a input should be a valid dictionary",
    "[providers.a]\n": 'providers.a.kind is missing; write kind = "openai"',
    '[providers.a]\nkind = "azure"\n': "providers.a.kind is not 'openai' or 'anthropic'",
    f'{VALID}base_ur = "http://h"\n': "providers.a.base_ur is not a member; write base_url",
    f"{VALID}zzzzz = 1\n": "providers.a.zzzzz is not a member; write kind or base_url or",
    f'{VALID}base_url = "localhost:1"\n': "providers.a.base_url is not an address such as http",
    f'{VALID}base_url = "http://h/v1?a=b"\n': "providers.a.base_url has ? or #",
    f'{VALID}base_url = "http://h/v1/chat/completions"\n': "ends with the route /chat/completions",
    f'{VALID}api = "chats"\n': "providers.a.api is not 'chat' or 'responses'",
    f'{VALID}api_key = "sk-secret"\napi_key_env = "B"\n': "providers.a has api_key and api_key_env",
    f'{VALID}api_key = "sk secret"\n': "providers.a.api_key: the key has characters",
    f'{VALID}headers = {{ "a b" = "c" }}\n': "providers.a.headers.a b string should match",
    f'{VALID}headers = {{ a = "c\\n" }}\n': "providers.a.headers.a string should match",
    '[providers.a]\nkind = "anthropic"\napi = "chat"\n': "providers.a has api, which",
}


@pytest.mark.parametrize(("content", "words"), MISTAKES.items())
def test_a_mistake_in_the_file_is_named(tmp_path: Path, content: str, words: str) -> None:
    with pytest.raises(SettingError) as caught:
        read_providers(settings(tmp_path, content))
    message = str(caught.value)
    assert words in message
    assert "secret" not in message
    assert "\n" not in message


def test_a_file_that_is_absent_is_named(tmp_path: Path) -> None:
    given = Settings().model_copy(update={"providers_file": tmp_path / "none.toml"})
    with pytest.raises(SettingError, match=r"MEMORYD_PROVIDERS_FILE: .*none.toml cannot be read"):
        check_llm(given)


def test_a_key_is_missed_when_its_model_is_used(tmp_path: Path) -> None:
    content = f'{VALID}api_key_env = "ABSENT_KEY"\n[providers.b]\nkind = "openai"\n'
    check_llm(settings(tmp_path, content))
    for spec, words in {
        "a:m": "a:m needs ABSENT_KEY, which providers.a.api_key_env names",
        "b:m": "b:m needs a key: set providers.b.api_key_env",
        "c:m": "write a:MODEL or anthropic:MODEL or b:MODEL or openai:MODEL",
    }.items():
        with pytest.raises(SettingError, match=f"MEMORYD_LLM: .*{words}"):
            check_llm(settings(tmp_path, content, llm=spec))


def test_the_file_may_replace_the_provider_of_the_variables(tmp_path: Path) -> None:
    content = '[providers.openai]\nkind = "openai"\nbase_url = "http://h/v1"\n'
    found = read_providers(settings(tmp_path, content, openai_api_key=SecretStr("k")))["openai"]
    assert (found.base_url, found.api_key, found.api) == ("http://h/v1", None, "chat")


def test_an_address_is_stored_without_its_password() -> None:
    provider = Provider(base_url="https://user:password@h:8/v1/")
    assert provider.address == "https://h:8/v1"
    assert "sk-1" not in repr(Provider(api_key="sk-1"))


@pytest.mark.parametrize("name", ["openai_base_url", "anthropic_base_url", "embedding_base_url"])
def test_an_address_without_a_scheme_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    variable = f"MEMORYD_{name}" if name.startswith("embedding") else name
    monkeypatch.setenv(variable.upper(), "localhost:11434/v1")
    with pytest.raises(ValidationError, match="is not an address such as"):
        Settings()


def test_a_wildcard_is_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMORYD_ALLOWED_MODELS", "openai:*,groq:llama-*")
    assert Settings().allowed_models == ["openai:*", "groq:llama-*"]
    monkeypatch.setenv("MEMORYD_ALLOWED_MODELS", "openai:*-mini")
    with pytest.raises(ValidationError, match=r"has \* before its end"):
        Settings()
