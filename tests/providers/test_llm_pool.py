import asyncio
import gc
import subprocess
import sys
import weakref
from functools import partial

import pytest

from app.config import Settings
from app.provider_settings import read_providers
from app.providers.errors import UnavailableError
from app.providers.llm import (
    LLM,
    DeferredLLM,
    LLMNotConfiguredError,
    LLMPool,
    Message,
    ModelNotAllowedError,
    Request,
    create_llm,
)
from app.providers.openai_chat import ChatLLM
from app.providers.provider import Provider, Providers
from app.providers.replies import cost
from tests.support.llm_server import hangs, llm_server, says

HELLO = Request("", (Message("user", "Hello"),))


KEYED = {
    "openai": Provider(api="responses", api_key="k"),
    "anthropic": Provider("anthropic", "anthropic", api_key="k"),
}


def pool(
    default: str | None = None, *, concurrency: int = 8, providers: Providers = KEYED
) -> LLMPool:
    """Return a pool that may ask some models besides the default."""
    allowed = {f"openai:{name}" for name in ["a", "b", "held", "m", "once", *range(40)]}
    allowed |= {"anthropic:b", "anthropic:c", "anthropic:m"}
    create = partial(create_llm, providers=providers)
    return LLMPool(default, create, allowed=allowed, concurrency=concurrency)


async def test_a_model_is_made_once_and_closed_with_its_pool() -> None:
    llms = pool("openai:a")
    assert llms.get() is llms.get("openai:a")
    assert llms.get("openai:b") is not llms.get()
    assert llms.get("openai:b").name == "openai:b"
    models = [llms.get(), llms.get("openai:b")]
    await llms.aclose()
    for llm in models:
        with pytest.raises(UnavailableError, match="is closed"):
            await llm.complete(HELLO)


async def test_only_the_models_used_last_are_kept() -> None:
    llms = pool("openai:default")
    default, forgotten = llms.get(), weakref.ref(llms.get("openai:once"))
    for number in range(40):
        llms.get(f"openai:{number}")
        assert llms.get() is default
    gc.collect()
    assert forgotten() is None
    await llms.aclose()


async def test_a_model_that_is_not_kept_still_answers_those_who_have_it() -> None:
    async with llm_server() as server:
        llms = pool(providers={"openai": Provider(base_url=server.base_url_openai)})
        server.script.append(hangs(0.1))
        held = llms.get("openai:held")
        call = asyncio.create_task(held.complete(HELLO))
        await asyncio.sleep(0.05)
        for number in range(40):
            llms.get(f"openai:{number}")
        server.script.append(says("Again."))
        assert (await call).text == "late"
        assert (await held.complete(HELLO)).text == "Again."
        await llms.aclose()


async def test_a_model_is_made_once_by_calls_that_come_together() -> None:
    made: list[LLM] = []
    async with llm_server() as server:

        def make() -> LLM:
            made.append(ChatLLM("m", Provider(base_url=server.base_url_openai)))
            return made[-1]

        llm = DeferredLLM("openai:m", make)
        assert made == []
        await asyncio.gather(*(llm.complete(HELLO) for _ in range(5)))
        assert (len(made), len(server.requests)) == (1, 5)
        await llm.aclose()


@pytest.mark.slow
def test_nothing_heavy_is_imported_before_a_model_is_asked() -> None:
    program = """
import sys
import app.providers.local_embedder, app.providers.embedder
from app.providers.llm import LLMPool, create_llm
from app.providers.provider import Provider
both = {"openai": Provider(), "anthropic": Provider("anthropic", "anthropic")}
create = lambda spec: create_llm(spec, both)
llms = LLMPool("openai:m", create, allowed=["anthropic:m"])
llms.get(), llms.get("anthropic:m")
print({"openai", "anthropic", "onnx", "torch"} & set(sys.modules))
"""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "set()"


async def test_a_provider_says_which_api_its_models_are_asked_through() -> None:
    async with llm_server() as server:
        for api in ("responses", "chat"):
            provider = Provider(base_url=server.base_url_openai, api=api)
            llm = create_llm("openai:m", {"openai": provider})
            await llm.complete(HELLO)
            await llm.aclose()
        paths = [sent.path for sent in server.requests]
        assert paths == ["/v1/responses", "/v1/chat/completions"]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (None, "set MEMORYD_LLM to anthropic:MODEL with ANTHROPIC_API_KEY"),
        ("anthropic:m", "anthropic:m needs ANTHROPIC_API_KEY, or ANTHROPIC_BASE_URL"),
        ("openai:m", "openai:m needs OPENAI_API_KEY, or OPENAI_BASE_URL"),
        ("openai:", "no language model is called 'openai:'"),
        ("gpt-6-sol", "no language model is called 'gpt-6-sol'"),
        ("other:m", "no language model is called 'other:m'"),
    ],
)
def test_what_is_missing_is_named(
    spec: str | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(LLMNotConfiguredError, match=words) as caught:
        pool(spec, providers=read_providers(Settings())).get()
    assert (caught.value.status, caught.value.code) == (422, "llm_not_configured")


def test_a_model_that_is_not_allowed_is_refused_with_those_that_are() -> None:
    llms = LLMPool(
        "openai:a", partial(create_llm, providers=KEYED), allowed=["openai:b", "anthropic:c"]
    )
    assert llms.get("openai:b").name == "openai:b"
    with pytest.raises(ModelNotAllowedError) as caught:
        llms.get("openai:expensive")
    assert (caught.value.status, caught.value.code) == (422, "model_not_allowed")
    assert 'Allowed: "anthropic:c", "openai:a", "openai:b".' in caught.value.detail


@pytest.mark.slow
async def test_calls_of_a_provider_are_limited_across_its_models() -> None:
    async with llm_server() as server:
        providers = {
            "openai": Provider(base_url=server.base_url_openai),
            "anthropic": Provider("anthropic", "anthropic", base_url=server.url),
        }
        llms = pool(concurrency=3, providers=providers)
        server.respond = lambda _: hangs(0.05)
        models: list[LLM] = [llms.get("openai:a"), llms.get("openai:b")]
        await asyncio.gather(*(model.complete(HELLO) for model in models * 6))
        assert (len(server.requests), server.max_in_flight) == (12, 3)
        models.append(llms.get("anthropic:c"))
        await models[-1].complete(HELLO)  # imports the SDK
        await asyncio.gather(*(model.complete(HELLO) for model in models * 6))
        assert (len(server.requests), server.max_in_flight) == (31, 6)
        await llms.aclose()


def test_prices_hold_for_dated_names_and_no_others() -> None:
    tokens = {"input_tokens": 1_000_000, "output_tokens": 1_000_000}
    assert cost("claude-sonnet-5", **tokens) == 12
    assert cost("claude-sonnet-5-20260630", **tokens) == 12
    assert cost("claude-opus-5-5", **tokens) == 24
    assert cost("gpt-6.1-sol-2026-10-01", **tokens) == 19
    assert cost("claude-opus-5-5-fast", **tokens) is None
    assert cost("gpt-oss-120b", **tokens) is None
    # Longer inputs have a price of their own.
    assert cost("gpt-6-sol", input_tokens=100_000, output_tokens=0) == pytest.approx(0.2)
    assert cost("gpt-6-sol", input_tokens=1_000_000, output_tokens=0) == pytest.approx(4)


def test_cached_and_written_tokens_have_their_own_price() -> None:
    dollars = cost(
        "claude-opus-5-5",
        input_tokens=1_000_000,
        output_tokens=0,
        cached_tokens=500_000,
        written_tokens=400_000,
    )
    assert dollars == pytest.approx(0.1 * 4 + 0.5 * 0.2 + 0.4 * 5)


def test_an_allowed_name_may_end_with_any_ending() -> None:
    llms = LLMPool(None, partial(create_llm, providers=KEYED), allowed=["openai:gpt-*"])
    assert llms.get("openai:gpt-6").name == "openai:gpt-6"
    for refused in ("openai:o9", "anthropic:gpt-6", "openai:gpt"):
        with pytest.raises(ModelNotAllowedError, match=r'Allowed: "openai:gpt-\*"\.'):
            llms.check(refused)
