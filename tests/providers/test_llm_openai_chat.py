from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from app.providers.errors import BadRequestError, MisconfiguredError
from app.providers.llm import Message, Request, TokenUsage, Tool, ToolResult
from app.providers.openai_chat import ChatLLM
from app.providers.provider import Provider
from tests.support.llm_server import LLMServer, Reply, fails, garbage

SAVE = Tool("save", "Save a memory.", {"type": "object"})
HELLO = Request("Be brief.", (Message("user", "Hello"),))
WITH_TOOL = Request("Be brief.", (Message("user", "Hello"),), tools=(SAVE,))


def error(status: int, code: str) -> Reply:
    body = orjson.dumps({"error": {"message": "scripted", "code": code}})
    return Reply(status=status, body=body)


def choice(finish_reason: str = "stop", **message: Any) -> Reply:
    said = {"role": "assistant", "content": None, **message}
    body = {"choices": [{"message": said, "finish_reason": finish_reason}]}
    return garbage(orjson.dumps(body))


@pytest.fixture
async def llm(server: LLMServer) -> AsyncIterator[ChatLLM]:
    one = ChatLLM("m", Provider(base_url=server.base_url_openai, api_key="k"), max_retries=0)
    yield one
    await one.aclose()


async def test_a_refused_limit_is_renamed_for_good(llm: ChatLLM, server: LLMServer) -> None:
    refusal = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    server.script.append(fails(400, refusal))
    await llm.complete(HELLO)
    await llm.complete(HELLO)
    names = [
        "max_tokens" if "max_tokens" in sent.body else "max_completion_tokens"
        for sent in server.requests
    ]
    assert names == ["max_tokens", "max_completion_tokens", "max_completion_tokens"]


async def test_a_model_that_cannot_reason_with_tools_calls_them_without(
    llm: ChatLLM, server: LLMServer
) -> None:
    refusal = "Function tools with reasoning_effort are not supported; set it to 'none'."
    server.script.append(fails(400, refusal))
    await llm.complete(WITH_TOOL)
    await llm.complete(HELLO)
    efforts = [sent.body.get("reasoning_effort") for sent in server.requests]
    assert efforts == [None, "none", None]


async def test_a_model_that_can_do_neither_is_refused(llm: ChatLLM, server: LLMServer) -> None:
    server.respond = lambda _: fails(400, "reasoning_effort: use /v1/responses")
    with pytest.raises(BadRequestError, match="use /v1/responses"):
        await llm.complete(WITH_TOOL)
    assert len(server.requests) == 2


async def test_what_a_server_adds_to_a_call_goes_back(llm: ChatLLM, server: LLMServer) -> None:
    call = {
        "id": "c1",
        "type": "function",
        "function": {"name": "save", "arguments": "{}"},
        "extra_content": {"thought_signature": "signed"},
    }
    server.script.append(
        choice("tool_calls", tool_calls=[call], reasoning_content="Hm.", audio=None)
    )
    answer = await llm.complete(WITH_TOOL)
    result = Message("user", results=(ToolResult("c1", "saved"),))
    await llm.complete(Request("", (*HELLO.messages, answer.message, result), tools=(SAVE,)))
    assert server.requests[1].body["messages"][1:] == [
        {
            "role": "assistant",
            "content": "",
            "reasoning_content": "Hm.",
            "tool_calls": [call],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "saved"},
    ]


async def test_calls_count_more_than_the_reason_to_stop(llm: ChatLLM, server: LLMServer) -> None:
    call = {"id": "c1", "function": {"name": "save", "arguments": "{}"}}
    server.script.append(choice("stop", tool_calls=[call]))
    assert (await llm.complete(WITH_TOOL)).finish_reason == "tools"
    assert "parallel_tool_calls" not in server.requests[0].body
    call = {"id": "c1", "function": {"name": "save", "arguments": '{"text": "Once'}}
    server.script.append(choice("length", tool_calls=[call]))
    answer = await llm.complete(WITH_TOOL)
    assert (answer.finish_reason, answer.calls[0].arguments) == ("length", None)


@pytest.mark.parametrize(
    ("sent", "arguments"),
    [
        ({"arguments": {"text": "Hi"}}, {"text": "Hi"}),
        ({"arguments": None}, {}),
        ({}, {}),
    ],
)
async def test_calls_are_read_as_lax_servers_send_them(
    llm: ChatLLM, server: LLMServer, sent: dict[str, Any], arguments: dict[str, Any]
) -> None:
    call = {"function": {"name": "save", **sent}}
    server.script.append(choice("tool_calls", tool_calls=[call, {"id": "", **call}]))
    answer = await llm.complete(WITH_TOOL)
    assert [call.arguments for call in answer.calls] == [arguments, arguments]
    assert len({call.id for call in answer.calls}) == 2
    results = tuple(ToolResult(call.id, "saved") for call in answer.calls)
    said = (*HELLO.messages, answer.message, Message("user", results=results))
    await llm.complete(Request("", said, tools=(SAVE,)))
    turn, *saved = server.requests[1].body["messages"][1:]
    assert [call["id"] for call in turn["tool_calls"]] == [one["tool_call_id"] for one in saved]


async def test_a_refusal_in_words_of_its_own_is_read(llm: ChatLLM, server: LLMServer) -> None:
    server.script.append(choice("stop", refusal="I won't."))
    answer = await llm.complete(HELLO)
    assert (answer.finish_reason, answer.text) == ("refusal", "I won't.")


async def test_a_filter_that_answers_with_an_error_is_a_refusal(
    llm: ChatLLM, server: LLMServer
) -> None:
    server.script.append(error(400, "content_filter"))
    answer = await llm.complete(HELLO)
    assert (answer.finish_reason, answer.text, answer.model) == ("refusal", "", "m")


async def test_servers_that_count_nothing_are_read(llm: ChatLLM, server: LLMServer) -> None:
    server.script.append(choice("stop", content="Hi."))
    answer = await llm.complete(HELLO)
    assert (answer.text, answer.model) == ("Hi.", "m")
    assert answer.usage == TokenUsage(0, 0, 0, None)


async def test_an_empty_account_is_no_passing_fault(llm: ChatLLM, server: LLMServer) -> None:
    server.script.append(error(429, "insufficient_quota"))
    with pytest.raises(MisconfiguredError, match="no credit left"):
        await llm.complete(HELLO)
