"""Which language model a setting names."""

import importlib
from typing import Any

from app.providers.llm.base import LLM
from app.providers.llm.deferred import DeferredLLM


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

    OpenAI itself is asked through its Responses, other servers through Chat Completions.
    """
    openai = ("openai_chat", "ChatLLM") if openai_base_url else ("openai_responses", "ResponsesLLM")
    providers = {
        "anthropic": (("anthropic", "AnthropicLLM"), anthropic_api_key, anthropic_base_url),
        "openai": (openai, openai_api_key, openai_base_url),
    }
    provider, _, model = spec.partition(":")
    if provider not in providers or not model:
        raise ValueError(
            f"no language model is called {spec!r}; write anthropic:MODEL or openai:MODEL"
        )
    (module, name), api_key, base_url = providers[provider]
    if not (api_key or base_url):
        raise ValueError(
            f"{spec} needs {provider.upper()}_API_KEY, "
            f"or {provider.upper()}_BASE_URL of a server that takes no key"
        )

    def make() -> LLM:
        found: Any = importlib.import_module(f"app.providers.llm.{module}")
        llm: LLM = getattr(found, name)(model, api_key=api_key, base_url=base_url, timeout=timeout)
        return llm

    return DeferredLLM(spec, make)
