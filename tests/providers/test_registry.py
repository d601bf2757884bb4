from functools import partial
from pathlib import Path

import pytest

from app.providers.embedder import TextForm, TextForms, create_embedder
from app.providers.provider import Provider

WITHOUT_KEY = {
    "anthropic": Provider("anthropic", "anthropic", api_key="k"),
    "openai": Provider(missing="OPENAI_API_KEY"),
}
create = partial(create_embedder, providers=WITHOUT_KEY, cache_dir=Path("models"), dimensions=None)


@pytest.mark.parametrize(
    ("setting", "dimensions"), [("local:all-MiniLM-L6-v2", 384), ("fake:hashed", 64)]
)
async def test_a_setting_selects_an_embedder(setting: str, dimensions: int) -> None:
    embedder = create(setting)
    assert embedder is not None
    assert (embedder.name, embedder.dimensions) == (setting, dimensions)
    await embedder.aclose()


async def test_an_openai_model_is_selected_with_its_dimensions() -> None:
    with_key = {"openai": Provider(api_key="key")}
    embedder = create("openai:text-embedding-3-small", providers=with_key, dimensions=256)
    assert embedder is not None
    assert (embedder.name, embedder.dimensions) == ("openai:text-embedding-3-small", 256)
    await embedder.aclose()
    assert create("none") is None


@pytest.mark.parametrize(
    "setting", ["", "local:other", "openai:", "local", "cohere:embed", "anthropic:m"]
)
def test_an_unknown_setting_is_refused_with_what_is_accepted(setting: str) -> None:
    with pytest.raises(ValueError, match="choose local:all-MiniLM-L6-v2, openai:MODEL"):
        create(setting)


@pytest.mark.parametrize(
    ("setting", "dimensions", "words"),
    [
        ("openai:text-embedding-3-small", None, "needs OPENAI_API_KEY"),
        ("local:all-MiniLM-L6-v2", 100, "has 384 dimensions, not 100"),
    ],
)
def test_an_embedder_that_cannot_work_is_refused(
    setting: str, dimensions: int | None, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        create(setting, dimensions=dimensions)


def test_the_local_model_takes_no_prefix() -> None:
    with pytest.raises(ValueError, match="needs neither prefixes nor input types"):
        create("local:all-MiniLM-L6-v2", forms=TextForms(query=TextForm("query: ")))
