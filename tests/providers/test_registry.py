from functools import partial
from pathlib import Path

import pytest

from app.providers.embedder import create_embedder

create = partial(
    create_embedder,
    cache_dir=Path("models"),
    openai_api_key=None,
    openai_base_url=None,
    dimensions=None,
)


@pytest.mark.parametrize(
    ("setting", "dimensions"), [("local:all-MiniLM-L6-v2", 384), ("fake:hashed", 64)]
)
async def test_a_setting_selects_an_embedder(setting: str, dimensions: int) -> None:
    embedder = create(setting)
    assert embedder is not None
    assert (embedder.name, embedder.dimensions) == (setting, dimensions)
    await embedder.aclose()


async def test_an_openai_model_is_selected_with_its_dimensions() -> None:
    embedder = create("openai:text-embedding-3-small", openai_api_key="key", dimensions=256)
    assert embedder is not None
    assert (embedder.name, embedder.dimensions) == ("openai:text-embedding-3-small", 256)
    await embedder.aclose()
    assert create("none") is None


@pytest.mark.parametrize("setting", ["", "local:other", "openai:", "local", "cohere:embed"])
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
