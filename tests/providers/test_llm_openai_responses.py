from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from app.providers.errors import RateLimitedError, UnavailableError
from app.providers.llm import Message, Request, TokenUsage, Tool, ToolResult
from app.providers.openai import ResponsesLLM
from app.providers.provider import Provider
from tests.support.llm_server import LLMServer, Reply, fails, garbage

SAVE = Tool("save", "Save a memory.", {"type": "object"})
HELLO = Request("Be brief.", (Message("user", "Hello"),))
WITH_TOOL = Request("Be brief.", (Message("user", "Hello"),), tools=(SAVE,))
USAGE = {"input_tokens": 10, "output_tokens": 5}
REASONING = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"}
CALL = {
    "type": "function_call",
    "id": "fc_1",
    "call_id": "call_1",
    "name": "save",
    "arguments": "{}",
    "status": "completed",
}


def words(text: str, **fields: Any) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": []}
    return {"type": "message", "id": "msg_1", "role": "assistant", "content": [part], **fields}


def response(*output: dict[str, Any], **fields: Any) -> Reply:
    body = {"status": "completed", "model": "m", "output": output, "usage": USAGE, **fields}
    return garbage(orjson.dumps(body))


def failed(code: str) -> Reply:
    return response(status="failed", error={"code": code, "message": "Sorry."}, usage=None)


@pytest.fixture
async def llm(server: LLMServer) -> AsyncIterator[ResponsesLLM]:
    one = ResponsesLLM("m", Provider(base_url=server.base_url_openai, api_key="k"), max_retries=0)
    yield one
    await one.aclose()


async def test_nothing_is_stored_and_schemas_are_taken_as_they_are(
    llm: ResponsesLLM, server: LLMServer
) -> None:
    await llm.complete(WITH_TOOL)
    (sent,) = server.requests
    assert sent.path == "/v1/responses"
    assert sent.body == {
        "model": "m",
        "input": [{"role": "user", "content": "Hello"}],
        "instructions": "Be brief.",
        "max_output_tokens": HELLO.max_tokens,
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "tools": [
            {
                "type": "function",
                "name": "save",
                "description": "Save a memory.",
                "parameters": {"type": "object"},
                "strict": False,
            }
        ],
        "tool_choice": "auto",
    }


async def test_reasoning_goes_back_without_what_only_a_store_would_know(
    llm: ResponsesLLM, server: LLMServer
) -> None:
    said = words("I'll save it.", phase="commentary")
    server.script.append(response({**REASONING, "content": None}, said, CALL))
    answer = await llm.complete(WITH_TOOL)
    assert (answer.text, answer.finish_reason) == ("I'll save it.", "tools")
    result = Message("user", "Go on.", results=(ToolResult("call_1", "saved"),))
    await llm.complete(Request("", (*HELLO.messages, answer.message, result), tools=(SAVE,)))
    assert server.requests[1].body["input"] == [
        {"role": "user", "content": "Hello"},
        {"type": "reasoning", "summary": [], "encrypted_content": "gAAA"},
        {
            "type": "message",
            "role": "assistant",
            "phase": "commentary",
            "content": [{"type": "output_text", "text": "I'll save it.", "annotations": []}],
        },
        {"type": "function_call", "call_id": "call_1", "name": "save", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_1", "output": "saved"},
        {"role": "user", "content": "Go on."},
    ]


async def test_a_model_that_does_not_reason_is_not_asked_to_show_it(
    llm: ResponsesLLM, server: LLMServer
) -> None:
    server.script.append(fails(400, "Encrypted content is not supported with this model."))
    await llm.complete(HELLO)
    await llm.complete(HELLO)
    assert ["include" in sent.body for sent in server.requests] == [True, False, False]


@pytest.mark.parametrize(
    ("reason", "stop"),
    [("max_output_tokens", "length"), ("content_filter", "refusal"), ("max_messages", "length")],
)
async def test_an_incomplete_answer_says_why_and_is_not_repeated(
    llm: ResponsesLLM, server: LLMServer, reason: str, stop: str
) -> None:
    cut = {**CALL, "arguments": '{"text": "Once', "status": "incomplete"}
    details = {"reason": reason}
    for item in (cut, CALL, REASONING):
        server.script.append(response(item, status="incomplete", incomplete_details=details))
        answer = await llm.complete(WITH_TOOL)
        assert (answer.finish_reason, answer.verbatim) == (stop, None)


async def test_a_refusal_in_words_is_read(llm: ResponsesLLM, server: LLMServer) -> None:
    part = {"type": "refusal", "refusal": "I won't."}
    server.script.append(response(words("", content=[part])))
    answer = await llm.complete(HELLO)
    assert (answer.finish_reason, answer.text) == ("refusal", "I won't.")


async def test_several_messages_are_paragraphs(llm: ResponsesLLM, server: LLMServer) -> None:
    server.script.append(response(words("Let me see."), REASONING, words("Done.")))
    assert (await llm.complete(HELLO)).text == "Let me see.\n\nDone."


@pytest.mark.parametrize("code", ["invalid_prompt", "bio_policy"])
async def test_a_filter_is_a_refusal_whichever_way_it_answers(
    llm: ResponsesLLM, server: LLMServer, code: str
) -> None:
    body = orjson.dumps({"error": {"message": "flagged", "code": code}})
    server.script.extend([Reply(status=400, body=body), failed(code)])
    for _ in range(2):
        answer = await llm.complete(HELLO)
        assert (answer.finish_reason, answer.text, answer.model) == ("refusal", "", "m")
        assert answer.usage == TokenUsage(0, 0, 0, None)


async def test_a_failure_behind_a_good_status_is_a_passing_fault(
    llm: ResponsesLLM, server: LLMServer
) -> None:
    server.script.extend([failed("server_error"), failed("rate_limit_exceeded")])
    with pytest.raises(UnavailableError, match=r"openai:m fails \(500\): Sorry"):
        await llm.complete(HELLO)
    with pytest.raises(RateLimitedError, match="asks for fewer requests: Sorry"):
        await llm.complete(HELLO)


async def test_what_is_written_to_the_cache_costs(llm: ResponsesLLM, server: LLMServer) -> None:
    details = {"cached_tokens": 200, "cache_write_tokens": 1_000}
    usage = {"input_tokens": 1_210, "output_tokens": 5, "input_tokens_details": details}
    server.script.append(response(words("Hi."), model="gpt-6-sol-2026-10-01", usage=usage))
    spent = (await llm.complete(HELLO)).usage
    assert (spent.input_tokens, spent.cached_tokens) == (1_210, 200)
    assert spent.cost_usd == pytest.approx((10 * 2 + 200 * 0.2 + 1_000 * 2.5 + 5 * 10) / 1e6)
