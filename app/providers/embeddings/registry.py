"""Creates the embedder that a setting names."""

import importlib
from pathlib import Path
from typing import Any

from app.providers.embeddings.base import Embedder
from app.providers.embeddings.fake import FakeEmbedder

_ACCEPTED = "local:all-MiniLM-L6-v2, openai:MODEL, fake:hashed (for tests) or none"


def create_embedder(
    setting: str,
    *,
    cache_dir: Path,
    openai_api_key: str | None,
    openai_base_url: str | None,
    dimensions: int | None,
) -> Embedder | None:
    """Return the embedder that `setting` names, not yet warmed up; None for `none`.

    Raises ValueError for a setting that names none, or lacks what it needs.
    """
    provider, _, model = setting.partition(":")
    if setting == "none":
        return None
    if setting == "fake:hashed":
        return FakeEmbedder(dimensions or 64)
    if setting == "local:all-MiniLM-L6-v2":
        if dimensions not in {None, 384}:
            raise ValueError(f"{setting} has 384 dimensions, not {dimensions}; leave them unset")
        local: Embedder = _module("local").LocalEmbedder(cache_dir)
        return local
    if provider == "openai" and model:
        if not (openai_api_key or openai_base_url):
            raise ValueError(
                f"{setting} needs OPENAI_API_KEY, or OPENAI_BASE_URL of a server that takes no key"
            )
        remote: Embedder = _module("openai").OpenAIEmbedder(
            model, api_key=openai_api_key, base_url=openai_base_url, dimensions=dimensions
        )
        return remote
    raise ValueError(f"no embedder is called {setting!r}; choose {_ACCEPTED}")


def _module(name: str) -> Any:
    """Import only what is configured: each SDK takes tens of megabytes and a good second."""
    return importlib.import_module(f"app.providers.embeddings.{name}")
