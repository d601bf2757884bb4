"""`memoryd doctor` and models: what they refuse, and whether they answer."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import SecretStr

from app.cli.check_result import Finding
from app.cli.doctor import diagnose
from app.config import Settings
from app.db.database import ALL_ROOTS, Database
from tests.support.llm_server import LLMServer, Received, Reply, calls, fails, llm_server, says
from tests.support.openai_server import Reply as EmbeddingReply
from tests.support.openai_server import openai_server

pytestmark = pytest.mark.slow

KEY = "sk-0123456789abcdef"
WORKS = ("report", {"works": "yes"})


@pytest.fixture
async def llm() -> AsyncIterator[LLMServer]:
    async with llm_server() as server:
        yield server


@pytest.fixture
def configured(settings: Settings, llm: LLMServer) -> Settings:
    return settings.model_copy(
        update={
            "embedding": "fake:hashed",
            "llm": "openai:first",
            "allowed_models": ["openai:second", "openai:third"],
            "openai_api_key": SecretStr(KEY),
            "openai_base_url": llm.base_url_openai,
        }
    )


async def examine(settings: Settings, **options: Any) -> dict[str, list[Finding]]:
    by_subject: dict[str, list[Finding]] = {}
    for finding in await asyncio.to_thread(diagnose, settings, **options):
        by_subject.setdefault(finding.subject, []).append(finding)
    return by_subject


async def test_each_model_and_the_embedder_are_asked(configured: Settings, llm: LLMServer) -> None:
    def respond(received: Received) -> Reply:
        assert received.tools
        if received.model == "second":
            return fails(401, f"the key {KEY} is\nunknown here")
        if received.model == "third":
            return says('```json\n{"name": "report", "arguments": {"works": "yes"}}\n```')
        return calls(WORKS)

    llm.respond = respond
    found = await examine(configured, ask=True)
    [embedding] = found["embedding"]
    first, second, third = found["LLM"]
    assert (embedding.good, first.good, second.good, third.good) == (True, True, False, True)
    assert embedding.detail.startswith("fake:hashed answered in 0.")
    assert embedding.detail.endswith(" s with 64 dimensions")
    assert first.detail.startswith("openai:first answered in ")
    assert first.detail.endswith(" s with a call")
    assert "the key [API key] is unknown here" in second.detail
    assert third.detail.endswith("with a call written as text, which is read")
    assert "\n" not in "".join(map(str, found["LLM"]))


async def test_a_failing_embedder_does_not_hide_the_answers_of_models(
    settings: Settings, configured: Settings, llm: LLMServer
) -> None:
    llm.respond = lambda _: says("I do not like tools.")
    async with openai_server() as embeddings:
        words = json.dumps({"error": {"message": "no such embedding model"}}).encode()
        embeddings.refuse = lambda _: EmbeddingReply(404, words)
        broken = {"embedding": "openai:e", "openai_base_url": embeddings.base_url, "llm": None}
        found = await examine(
            settings.model_copy(update={**broken, "allowed_models": None}), ask=True
        )
    [embedding] = found["embedding"]
    assert not embedding.good
    assert "no such embedding model" in embedding.detail
    assert "none; the store needs none" in found["LLM"][0].detail
    one = configured.model_copy(update={"embedding": "openai:e", "allowed_models": None})
    found = await examine(one, ask=True)
    assert not found["embedding"][0].good
    assert "without a call, so it may extract no memories" in found["LLM"][0].detail


async def test_what_models_refuse_is_shown_and_forgotten(
    configured: Settings, llm: LLMServer, database: Database
) -> None:
    def respond(received: Received) -> Reply:
        if received.tool_choice == "any":
            return fails(400, "tool_choice must be auto here")
        if received.max_tokens > 1_000:
            return fails(400, "max_tokens must be at most 1000")
        return calls(WORKS)

    llm.respond = respond
    await examine(configured, forget="all")  # what servers of other tests wrote down at their end
    assert all(finding.good for finding in (await examine(configured, ask=True))["LLM"])
    found = (await examine(configured))["remembered"]
    shown = [finding.detail for finding in found if finding.detail.startswith("second at ")]
    assert len(found) == 6
    assert shown[0].startswith(
        f"second at {llm.base_url_openai}, output_tokens at most 1,000 since"
    )
    assert shown[1].endswith(' UTC: "tool_choice must be auto here"')
    [forgotten] = (await examine(configured, forget="unknown"))["forgotten"]
    assert (forgotten.good, forgotten.detail) == (
        False,
        "0 of unknown; models with something to forget: first, second, third",
    )
    after = await examine(configured, forget="openai:second")
    assert after["forgotten"][0].detail.startswith("2 of openai:second;")
    assert len(after["remembered"]) == 4
    assert "remembered" not in await examine(configured, forget="all")
    async with database.connection(ALL_ROOTS) as connection:
        assert await connection.fetchval("SELECT count(*) FROM model_capabilities") == 0
