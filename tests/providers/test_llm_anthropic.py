from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from app.providers.anthropic import AnthropicLLM
from app.providers.errors import BadRequestError
from app.providers.llm import Message, Request, Tool, ToolResult
from app.providers.provider import Provider
from tests.support.llm_server import LLMServer, fails, garbage

SAVE = Tool("save", "Save a memory.", {"type": "object"})
DROP = Tool("drop", "Drop a memory.", {"type": "object"})
HELLO = Request("Be brief.", (Message("user", "Hello"),), tools=(SAVE, DROP))
THINKING = {"type": "thinking", "thinking": "", "signature": "signed"}
USE = {"type": "tool_use", "id": "toolu_1", "name": "save", "input": {"text": "a"}}


def message(*content: dict[str, Any], stop: str = "tool_use", **usage: int) -> bytes:
    tokens = {"input_tokens": 10, "output_tokens": 5, **usage}
    body = {"model": "claude-opus-5", "content": content, "stop_reason": stop, "usage": tokens}
    return orjson.dumps(body)


@pytest.fixture
async def llm(server: LLMServer) -> AsyncIterator[AnthropicLLM]:
    one = AnthropicLLM(
        "claude-opus-5",
        Provider("anthropic", "anthropic", base_url=server.url, api_key="k"),
        max_retries=0,
    )
    yield one
    await one.aclose()


async def test_system_and_tools_are_cached(llm: AnthropicLLM, server: LLMServer) -> None:
    await llm.complete(HELLO)
    body = server.requests[0].body
    mark = {"type": "ephemeral"}
    assert body["system"] == [{"type": "text", "text": "Be brief.", "cache_control": mark}]
    assert [tool.get("cache_control") for tool in body["tools"]] == [None, mark]


async def test_a_temperature_is_not_sent(llm: AnthropicLLM, server: LLMServer) -> None:
    await llm.complete(Request("", HELLO.messages, temperature=0.2))
    assert "temperature" not in server.requests[0].body


async def test_what_is_written_to_the_cache_counts_and_costs(
    llm: AnthropicLLM, server: LLMServer
) -> None:
    text = {"type": "text", "text": "Hi."}
    body = message(text, cache_read_input_tokens=200, cache_creation_input_tokens=1_000)
    server.script.append(garbage(body))
    spent = (await llm.complete(HELLO)).usage
    assert (spent.input_tokens, spent.cached_tokens) == (1_210, 200)
    expected = (10 * 5 + 200 * 0.5 + 1_000 * 6.25 + 5 * 25) / 1e6
    assert spent.cost_usd == pytest.approx(expected)


@pytest.mark.parametrize(
    ("reason", "stop"),
    [
        ("stop_sequence", "end"),
        ("max_tokens", "length"),
        ("something_new", "end"),
    ],
)
async def test_reasons_to_stop_are_read(
    llm: AnthropicLLM, server: LLMServer, reason: str, stop: str
) -> None:
    server.script.append(garbage(message(stop=reason)))
    assert (await llm.complete(HELLO)).finish_reason == stop


async def test_thinking_goes_back_as_it_came(llm: AnthropicLLM, server: LLMServer) -> None:
    server.script.append(garbage(message(THINKING, USE)))
    answer = await llm.complete(HELLO)
    assert (answer.text, len(answer.calls)) == ("", 1)
    result = Message("user", results=(ToolResult("toolu_1", "saved"),))
    await llm.complete(Request("", (*HELLO.messages, answer.message, result), tools=(SAVE,)))
    assert server.requests[1].body["messages"][1]["content"] == [THINKING, USE]


async def test_thinking_about_other_words_is_left_out(llm: AnthropicLLM, server: LLMServer) -> None:
    bound = "messages.1: the thinking block is bound to a different conversation"
    server.script.extend([garbage(message(THINKING, USE)), fails(400, bound)])
    answer = await llm.complete(HELLO)
    result = Message("user", results=(ToolResult("toolu_1", "saved"),))
    changed = Request("Else.", (*HELLO.messages, answer.message, result), tools=(SAVE,))
    await llm.complete(changed)
    assert server.requests[2].body["messages"][1]["content"] == [USE]
    server.respond = lambda _: fails(400, bound)
    with pytest.raises(BadRequestError, match="different conversation"):
        await llm.complete(changed)
