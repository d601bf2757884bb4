"""Which language model a setting names."""

import importlib
from typing import Any

from app.providers.llm.base import LLM

_CLASSES = {"anthropic": "AnthropicLLM", "openai": "OpenAILLM"}


def create_llm(
    spec: str,
    *,
    anthropic_api_key: str | None = None,
    anthropic_base_url: str | None = None,
    openai_api_key: str | None = None,
    openai_base_url: str | None = None,
    timeout: float = 120,
) -> LLM:
    """Return the model that `spec` names; raises ValueError for one that names none or lacks a key.

    The first of a provider takes about a second: its SDK is imported.
    """
    provider, _, model = spec.partition(":")
    if provider not in _CLASSES or not model:
        raise ValueError(
            f"no language model is called {spec!r}; write anthropic:MODEL or openai:MODEL"
        )
    api_key, base_url = {
        "anthropic": (anthropic_api_key, anthropic_base_url),
        "openai": (openai_api_key, openai_base_url),
    }[provider]
    if not (api_key or base_url):
        raise ValueError(
            f"{spec} needs {provider.upper()}_API_KEY, "
            f"or {provider.upper()}_BASE_URL of a server that takes no key"
        )
    module: Any = importlib.import_module(f"app.providers.llm.{provider}")
    llm: LLM = getattr(module, _CLASSES[provider])(
        model, api_key=api_key, base_url=base_url, timeout=timeout
    )
    return llm
