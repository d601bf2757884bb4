import asyncio
from functools import partial
from typing import Any

import pytest

from app.providers.errors import UnavailableError
from app.providers.llm.base import LLM, Message, Request
from app.providers.llm.pool import LLMNotConfiguredError, LLMs
from app.providers.llm.prices import cost
from app.providers.llm.registry import create_llm
from tests.support.llm_server import hangs, llm_server

HELLO = Request("", (Message("user", "Hello"),))


def pool(default: str | None = None, *, concurrency: int = 8, **access: Any) -> LLMs:
    return LLMs(default, partial(create_llm, **access), concurrency=concurrency)


async def test_a_model_is_made_once() -> None:
    llms = pool("openai:a", openai_api_key="k")
    assert llms.get() is llms.get("openai:a")
    assert llms.get("openai:b") is not llms.get()
    assert llms.get("openai:b").name == "openai:b"
    await llms.aclose()


async def test_models_are_closed_together() -> None:
    llms = pool("openai:a", openai_api_key="k", anthropic_api_key="k")
    models = [llms.get(), llms.get("anthropic:b")]
    await llms.aclose()
    for llm in models:
        with pytest.raises(UnavailableError, match="is closed"):
            await llm.complete(HELLO)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (None, "set MEMORYD_LLM to anthropic:MODEL with ANTHROPIC_API_KEY"),
        ("anthropic:m", "anthropic:m needs ANTHROPIC_API_KEY, or ANTHROPIC_BASE_URL"),
        ("openai:m", "openai:m needs OPENAI_API_KEY, or OPENAI_BASE_URL"),
        ("openai:", "no language model is called 'openai:'; write anthropic:MODEL or"),
        ("gpt-6-sol", "no language model is called 'gpt-6-sol'; write anthropic:MODEL or"),
        ("other:m", "no language model is called 'other:m'; write anthropic:MODEL or"),
    ],
)
def test_what_is_missing_is_named(spec: str | None, words: str) -> None:
    with pytest.raises(LLMNotConfiguredError, match=words) as caught:
        pool().get(spec)
    assert (caught.value.status, caught.value.code) == (422, "llm_not_configured")


@pytest.mark.parametrize("spec", ["anthropic:m", "openai:m"])
async def test_a_server_of_ones_own_needs_no_key(spec: str) -> None:
    url = "http://127.0.0.1:9"
    llms = pool(spec, anthropic_base_url=url, openai_base_url=url)
    assert llms.get().name == spec
    await llms.aclose()


@pytest.mark.slow
async def test_calls_of_a_provider_are_limited_across_its_models() -> None:
    async with llm_server() as server:
        access = {"openai_base_url": server.base_url_openai, "anthropic_base_url": server.url}
        llms = pool(concurrency=3, **access)
        server.respond = lambda _: hangs(0.05)
        models: list[LLM] = [llms.get("openai:a"), llms.get("openai:b")]
        await asyncio.gather(*(model.complete(HELLO) for model in models * 6))
        assert (len(server.requests), server.max_in_flight) == (12, 3)
        models.append(llms.get("anthropic:c"))
        await asyncio.gather(*(model.complete(HELLO) for model in models * 6))
        assert (len(server.requests), server.max_in_flight) == (30, 6)
        await llms.aclose()


def test_prices_hold_for_dated_names_and_no_others() -> None:
    tokens = {"input_tokens": 1_000_000, "output_tokens": 1_000_000}
    assert cost("claude-sonnet-5", **tokens) == 12
    assert cost("claude-sonnet-5-20260630", **tokens) == 12
    assert cost("claude-sonnet-5-5", **tokens) == 12
    assert cost("claude-opus-5", **tokens) == 30
    assert cost("claude-opus-5-5", **tokens) == 24
    assert cost("claude-opus-5-5-2026-09-22", **tokens) == 24
    assert cost("claude-opus-5-5-fast", **tokens) is None
    assert cost("gemma4:12b", **tokens) is None


def test_a_price_holds_up_to_its_length() -> None:
    assert cost("claude-haiku-5-5", input_tokens=100_000, output_tokens=0) == 0.01
    assert cost("claude-haiku-5-5", input_tokens=100_001, output_tokens=0) is None


def test_cached_and_written_tokens_have_their_own_price() -> None:
    dollars = cost(
        "claude-opus-5-5",
        input_tokens=1_000_000,
        output_tokens=0,
        cached_tokens=500_000,
        written_tokens=400_000,
    )
    assert dollars == pytest.approx(0.1 * 4 + 0.5 * 0.2 + 0.4 * 5)
