"""Servers that refuse a feature, answer in forms of their own, or report errors in odd ways."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeAlias

import pytest

from app.providers.anthropic import AnthropicLLM
from app.providers.capabilities import Capabilities
from app.providers.errors import (
    MisconfiguredError,
    ProviderError,
    RateLimitedError,
    RequestTooLongError,
    UnavailableError,
)
from app.providers.llm import LLM, Message, Request, Tool, ToolResult, UnusableReplyError
from app.providers.openai import ResponsesLLM
from app.providers.openai_chat import ChatLLM
from app.providers.provider import Provider
from tests.support.llm_server import LLMServer, Received, Reply, calls, fails, garbage, says

SAVE = Tool("save", "Save.", {"type": "object", "properties": {"text": {"type": "string"}}})
HELLO = Request("Be brief.", (Message("user", "Hello"),))
FORCED = Request("Be brief.", HELLO.messages, tools=(SAVE,), tool_choice="any")
DONE = ("save", {"text": "tea"})

JSON: TypeAlias = dict[str, Any]
Refusal: TypeAlias = tuple[int, str]


@pytest.fixture
def capabilities() -> Capabilities:
    return Capabilities()


@pytest.fixture
async def chat(server: LLMServer, capabilities: Capabilities) -> AsyncIterator[ChatLLM]:
    made = ChatLLM(
        "m",
        Provider(base_url=server.base_url_openai),
        max_retries=0,
        timeout=5,
        capabilities=capabilities,
    )
    yield made
    await made.aclose()


@pytest.fixture
async def claude(server: LLMServer, capabilities: Capabilities) -> AsyncIterator[AnthropicLLM]:
    made = AnthropicLLM(
        "m",
        Provider("anthropic", "anthropic", base_url=server.base_url_anthropic, api_key="k"),
        max_retries=0,
        timeout=5,
        capabilities=capabilities,
    )
    yield made
    await made.aclose()


def refuses_if(has: Callable[[JSON], bool], status: int, message: str) -> Callable[..., Reply]:
    def respond(received: Received) -> Reply:
        return fails(status, message) if has(received.body) else calls(DONE)

    return respond


def is_forced(body: JSON) -> bool:
    choice = body.get("tool_choice")
    kind = choice.get("type") if isinstance(choice, dict) else choice
    return kind not in (None, "auto", "none")


@pytest.mark.parametrize(
    ("feature", "has", "status", "message"),
    [
        ("tool_choice", is_forced, 404, "No endpoint supports the given 'tool_choice'"),
        ("tool_choice", is_forced, 500, 'Value error: tool_choice "required" needs a parser'),
        ("tool_choice", is_forced, 422, "Input should be 'none' or 'auto'"),
        ("tool_choice", is_forced, 400, "Forced function calling is off in thinking mode"),
        ("tool_choice", is_forced, 400, "this request cannot be served"),
        (
            "open_objects",
            lambda body: "additionalProperties" not in body["tools"][0]["function"]["parameters"],
            400,
            "'additionalProperties' is required to be supplied and to be false",
        ),
        ("tools", lambda body: "tools" in body, 400, "llama-x does not support tools"),
        (
            "system_role",
            lambda body: body["messages"][0]["role"] == "system",
            400,
            "System role not supported",
        ),
        (
            "output_tokens",
            lambda body: body["max_tokens"] > 4_000,
            400,
            "max_tokens must be at most 4000, was 8192",
        ),
    ],
)
async def test_a_chat_server_gets_requests_without_the_feature_that_it_refuses(
    chat: ChatLLM,
    server: LLMServer,
    capabilities: Capabilities,
    *,
    feature: str,
    has: Callable[[JSON], bool],
    status: int,
    message: str,
) -> None:
    server.respond = refuses_if(has, status, message)
    if feature == "tools":
        server.respond = refuses_in_words(has, status, message)
    answer = await chat.complete(FORCED)
    assert answer.calls or "save" in answer.text
    count = len(server.requests)
    assert count <= 6
    await chat.complete(FORCED)
    assert len(server.requests) == count + 1, "it is remembered"
    [restriction] = capabilities.all()
    assert (restriction.feature, restriction.model.name) == (feature, "m")
    assert "Be brief." in json.dumps(server.requests[-1].body), "the instructions are sent"


@pytest.mark.parametrize("message", ["", "the engine hit an assertion"])
async def test_a_server_that_breaks_on_a_forced_call_is_asked_without_it(
    chat: ChatLLM, server: LLMServer, capabilities: Capabilities, message: str
) -> None:
    server.respond = refuses_if(is_forced, 500, message)
    assert (await chat.complete(FORCED)).calls
    assert len(server.requests) == 2
    assert capabilities.all() == [], "the server may have had another fault"
    server.respond = lambda _: fails(500, message)
    with pytest.raises(UnavailableError):
        await chat.complete(FORCED)
    assert len(server.requests) == 4


def refuses_in_words(has: Callable[[JSON], bool], status: int, text: str) -> Callable[..., Reply]:
    def respond(received: Received) -> Reply:
        if has(received.body):
            return fails(status, text)
        assert '"save"' in json.dumps(received.body).replace("\\", "")
        return says('{"name": "save", "arguments": {"text": "tea"}}')

    return respond


@pytest.mark.parametrize(
    ("feature", "has", "message"),
    [
        ("cache_control", lambda body: "cache_control" in json.dumps(body), "extra: cache_control"),
        ("cache_control", lambda body: "cache_control" in json.dumps(body), "invalid request"),
        (
            "system_blocks",
            lambda body: not isinstance(body["system"], str),
            "system: must be of type string",
        ),
        ("tool_choice", is_forced, "Thinking is on, so tool_choice cannot force a tool."),
    ],
)
async def test_a_messages_server_gets_requests_without_the_feature_that_it_refuses(
    claude: AnthropicLLM,
    server: LLMServer,
    capabilities: Capabilities,
    *,
    feature: str,
    has: Callable[[JSON], bool],
    message: str,
) -> None:
    server.respond = refuses_if(has, 400, message)
    for _ in range(2):
        assert (await claude.complete(FORCED)).calls
    assert [restriction.feature for restriction in capabilities.all()] == [feature]
    assert not has(server.requests[-1].body)


async def test_reasoning_is_sent_back_unless_it_is_refused(
    chat: ChatLLM, server: LLMServer
) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "save", "arguments": "{}"}}
    server.script.append(chat_reply({"content": None, "thoughts": "Hm.", "tool_calls": [call]}))
    answer = await chat.complete(FORCED)
    result = Message("user", results=(ToolResult("1", "saved"),))
    request = Request("", (*HELLO.messages, answer.message, result), tools=(SAVE,))
    await chat.complete(request)
    assert server.requests[-1].body["messages"][1]["thoughts"] == "Hm."
    server.respond = refuses_if(
        lambda body: "thoughts" in body["messages"][1], 400, "property 'thoughts' is unsupported"
    )
    assert (await chat.complete(request)).calls
    assert server.requests[-1].body["messages"][1] == {
        "role": "assistant",
        "content": "",
        "tool_calls": [call],
    }


async def test_a_server_that_only_streams_is_asked_for_a_stream(
    chat: ChatLLM, server: LLMServer
) -> None:
    parts: list[JSON] = [
        {"content": "<think>Hm.</think>Sav"},
        {"content": "ed.", "tool_calls": [call_part(0, "a", "save", '{"text"')]},
        {"tool_calls": [call_part(0, None, None, ': "tea"}'), call_part(1, "b", "save", "{}")]},
    ]
    events = [{"model": "m", "choices": [{"index": 0, "delta": part}]} for part in parts]
    usage = {"usage": {"prompt_tokens": 5, "completion_tokens": 2}, "choices": []}
    lines = [*map(json.dumps, events), json.dumps(usage), "[DONE]"]
    stream = garbage("".join(f"data: {line}\n\n" for line in lines).encode(), "text/event-stream")
    server.respond = lambda received: (
        stream if received.body.get("stream") else fails(400, "This model only supports streaming")
    )
    answer = await chat.complete(FORCED)
    assert answer.text == "Saved."
    assert [(call.id, call.arguments) for call in answer.calls] == [
        ("a", {"text": "tea"}),
        ("b", {}),
    ]
    assert answer.usage.input_tokens == 5


def stream_of(*deltas: JSON, reason: str | None = None, end: str = "") -> Reply:
    events = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
    text = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + end
    return garbage(text.encode(), "text/event-stream")


async def test_a_stream_that_breaks_off_is_truncated(chat: ChatLLM, server: LLMServer) -> None:
    whole, half = (call_part(n, str(n), "save", json.dumps(DONE[1])) for n in range(2))
    for reason, end, found in (
        (None, "", "length"),
        (None, "data: [DONE]\n\n", "tools"),
        ("stop", "", "tools"),
    ):
        server.script.append(
            stream_of({"tool_calls": [whole]}, {"tool_calls": [half]}, reason=reason, end=end)
        )
        answer = await chat.complete(FORCED)
        assert (answer.finish_reason, len(answer.calls)) == (found, 2)
    server.script.append(stream_of({"role": "assistant", "content": ""}))
    with pytest.raises(UnusableReplyError):
        await chat.complete(FORCED)
    error = 'data: {"error": {"message": "idle"}}\n\ndata: [DONE]\n\n'
    server.script.append(stream_of({"content": "Once"}, end=error))
    with pytest.raises(UnavailableError, match="idle"):
        await chat.complete(FORCED)


async def test_a_stream_of_another_api_is_never_half_an_answer(
    claude: AnthropicLLM, server: LLMServer
) -> None:
    use = {"type": "tool_use", "id": "a", "name": "save", "input": {}}
    start = {"type": "content_block_start", "index": 0, "content_block": use}
    message = {"type": "message_start", "message": {"content": [], "stop_reason": None}}
    events = "".join(f"event: x\ndata: {json.dumps(event)}\n\n" for event in (message, start))
    server.respond = lambda _: garbage(events.encode(), "text/event-stream")
    openai = ResponsesLLM("m", Provider(base_url=server.base_url_openai), max_retries=0)
    for llm in (claude, openai):
        with pytest.raises(UnusableReplyError):
            await llm.complete(FORCED)
    await openai.aclose()


@pytest.mark.parametrize(
    "parts",
    [
        [("a", "save", '{"text"'), (None, None, ': "x"}'), ("b", "drop", '{"n"'), ("", "", ": 1}")],
        [("a", "save", '{"text": "x"}'), ("b", "drop", '{"n": 1}')],
        [(None, "save", '{"text": '), (None, None, '"x"}'), (None, "drop", '{"n": 1}')],
        [("a", "save", '{"text": '), ("a", "save", '"x"}'), ("b", "drop", '{"n": 1}')],
        [("a", "save", ""), ("a2", None, '{"text": "x"}'), ("b", "drop", '{"n": 1}')],
    ],
)
@pytest.mark.parametrize("index", [None, 0])
async def test_calls_of_a_stream_that_are_not_numbered_stay_apart(
    chat: ChatLLM, server: LLMServer, parts: list[tuple[str, str, str]], index: int | None
) -> None:
    deltas = [
        {"tool_calls": [{"index": index, "id": i, "function": {"name": n, "arguments": a}}]}
        for i, n, a in parts
    ]
    server.script.append(stream_of(*deltas, reason="tool_calls"))
    answer = await chat.complete(FORCED)
    assert [(call.name, call.arguments) for call in answer.calls] == [
        ("save", {"text": "x"}),
        ("drop", {"n": 1}),
    ]


async def test_equal_names_in_a_stream_are_several_calls(chat: ChatLLM, server: LLMServer) -> None:
    parts = [{"function": {"name": "save", "arguments": f'{{"text": "{n}"}}'}} for n in range(3)]
    server.script.append(stream_of(*({"tool_calls": [part]} for part in parts), reason="stop"))
    assert [call.arguments for call in (await chat.complete(FORCED)).calls] == [
        {"text": str(n)} for n in range(3)
    ]


def call_part(index: int, call_id: str | None, name: str | None, arguments: str) -> JSON:
    return {"index": index, "id": call_id, "function": {"name": name, "arguments": arguments}}


def chat_reply(message: JSON, **fields: Any) -> Reply:
    choice = {"message": message, **fields}
    return garbage(json.dumps({"choices": [choice]}).encode(), "application/json")


def thought_in_call(text: str) -> JSON:
    return {"id": "a", "function": {"name": "save", "arguments": json.dumps({"text": text})}}


@pytest.mark.parametrize(
    ("message", "fields", "text", "found"),
    [
        ({"content": [{"type": "thinking", "thinking": []}, {"text": "a"}, "b"]}, {}, "ab", []),
        ({"content": {"type": "text", "text": "a"}}, {}, "a", []),
        ({"content": [{"type": "text", "text": {"value": "a"}}]}, {}, "a", []),
        ({}, {"delta": {"content": "a"}}, "a", []),
        ({}, {"text": "a"}, "a", []),
        ({"function_call": {"name": "save", "arguments": "{}"}}, {}, "", [("save", {})]),
        ({"tool_calls": [{"function": {"name": "save"}}]}, {}, "", [("save", {})]),
        ({"tool_calls": {"id": "a", "function": {"name": "save"}}}, {}, "", [("save", {})]),
        ({"tool_calls": [{"name": "save", "arguments": {"a": 1}}]}, {}, "", [("save", {"a": 1})]),
        ({"tool_calls": [thought_in_call("<think>hm</think>tea")]}, {}, "", [DONE]),
        ({"tool_calls": [thought_in_call("[THINK]hm[/THINK]")]}, {}, "", [("save", {})]),
        ({"tool_calls": [{"function": {"name": None}}, None]}, {}, "", [("unnamed", {})]),
        ({"content": "x", "tool_calls": None, "refusal": None}, {"finish_reason": 5}, "x", []),
        ({"content": "<THINK>a</THINK> b <think>c</think>"}, {}, "b", []),
        ({"content": "thoughts without a beginning</think>\n\nb"}, {}, "b", []),
        ({"content": "<thinking>cut"}, {"finish_reason": "length"}, "", []),
        ({"content": "Use <think> tags."}, {}, "Use <think> tags.", []),
    ],
)
async def test_replies_are_read_in_the_forms_that_servers_send(
    chat: ChatLLM,
    server: LLMServer,
    *,
    message: JSON,
    fields: JSON,
    text: str,
    found: list[tuple[str, JSON]],
) -> None:
    server.script.append(chat_reply(message, **fields))
    answer = await chat.complete(HELLO)
    assert answer.text == text
    assert [(call.name, call.arguments) for call in answer.calls] == found
    assert len({call.id for call in answer.calls}) == len(found)
    assert answer.usage.input_tokens == 0


@pytest.mark.parametrize(
    ("word", "found"),
    [
        *((word, "length") for word in ("LENGTH", "max_tokens", "FinishReason.MAX_TOKENS")),
        *((word, "length") for word in ("Model_Length", "token_limit", "max_new_tokens")),
        *((word, "length") for word in ("model_context_window_exceeded", "incomplete")),
        *((word, "length") for word in ("output-limit", "Max-Tokens", "max output", "tokenBudget")),
        *((word, "failed") for word in ("rate_limit_error", "network_error")),
        *((word, "refusal") for word in ("content_filter", "SAFETY", "guardrail_intervened")),
        *((word, "failed") for word in ("error", "insufficient_system_resource", "abort")),
        *((word, "end") for word in ("stop", "end_turn", "eos_token", "COMPLETE", "stop_sequence")),
    ],
)
async def test_every_word_for_why_an_answer_stopped_is_known(
    chat: ChatLLM, claude: AnthropicLLM, server: LLMServer, word: str, found: str
) -> None:
    content = [{"type": "text", "text": "Once"}]
    message = json.dumps({"content": content, "stop_reason": word}).encode()
    for llm, reply in (
        (chat, chat_reply({"content": "Once"}, finish_reason=word)),
        (claude, garbage(message, "application/json")),
    ):
        server.script.append(reply)
        if found == "failed":
            with pytest.raises(UnusableReplyError):
                await llm.complete(HELLO)
        else:
            assert (await llm.complete(HELLO)).finish_reason == found


@pytest.mark.parametrize("count", ["Infinity", "NaN", "-Infinity"])
async def test_counts_that_are_no_numbers_cost_the_usage_alone(
    server: LLMServer, count: str
) -> None:
    usage = f'"usage": {{"prompt_tokens": {count}, "completion_tokens": 3}}'
    choice = {"message": {"content": "Tea."}, "delta": {"content": "Tea."}, "finish_reason": "stop"}
    body = f'{{"model": "gpt-4o", "choices": [{json.dumps(choice)}], {usage}}}'
    llm = ChatLLM("gpt-4o", Provider(base_url=server.base_url_openai), max_retries=0)
    for reply in (body, f"data: {body}\n\n"):
        server.script.append(garbage(reply.encode(), "application/json"))
        answer = await llm.complete(HELLO)
        assert answer.text == "Tea."
        assert (answer.usage.input_tokens, answer.usage.cost_usd) == (0, None)
    await llm.aclose()


async def test_an_answer_without_room_is_a_request_that_is_too_long(
    chat: ChatLLM, claude: AnthropicLLM, server: LLMServer
) -> None:
    def empty(counts: JSON, **fields: Any) -> Reply:
        choice = {"message": {"role": "assistant", "content": "", **fields}}
        answer = {"choices": [{**choice, "finish_reason": "length"}], "usage": counts}
        return garbage(json.dumps(answer).encode(), "application/json")

    for counts in ({}, {"prompt_tokens": 8_192, "completion_tokens": 1}):
        server.script.append(empty(counts))
        with pytest.raises(RequestTooLongError):
            await chat.complete(HELLO)
    stop = {"content": [], "stop_reason": "model_context_window_exceeded"}
    server.script.append(garbage(json.dumps(stop).encode(), "application/json"))
    with pytest.raises(RequestTooLongError):
        await claude.complete(HELLO)
    many = {"prompt_tokens": 8_192, "completion_tokens": 8_192}
    for reply in (empty(many), empty({}, reasoning_content="Hm.")):
        server.script.append(reply)
        assert (await chat.complete(HELLO)).finish_reason == "length"
    assert not server.script


async def test_the_word_of_the_server_behind_a_gateway_decides_if_it_is_for_a_cut_answer(
    chat: ChatLLM, server: LLMServer
) -> None:
    fields = {"finish_reason": "tool_calls", "native_finish_reason": "MAX_TOKENS"}
    server.script.append(chat_reply({"content": "Once"}, **fields))
    assert (await chat.complete(HELLO)).finish_reason == "length"


@pytest.mark.parametrize(
    ("reply", "text", "reason"),
    [
        ({"status": "completed", "output": [{"content": "Tea."}]}, "Tea.", "end"),
        ({"output": [{"type": "message", "content": [{"text": "Tea."}]}]}, "Tea.", "end"),
        (
            {"status": "incomplete", "output": [{"type": "message", "content": "<think>cut"}]},
            "",
            "length",
        ),
        (
            {"output": [{"type": "message", "status": "incomplete", "content": "Te"}]},
            "Te",
            "length",
        ),
        (
            {
                "status": "incomplete",
                "incomplete_details": {"reason": "content_filter"},
                "output": [{"type": "reasoning", "summary": []}],
            },
            "",
            "refusal",
        ),
    ],
)
async def test_responses_are_read_in_the_forms_that_gateways_send(
    server: LLMServer, reply: JSON, text: str, reason: str
) -> None:
    llm = ResponsesLLM("m", Provider(base_url=server.base_url_openai, api_key="k"), max_retries=0)
    server.script.append(garbage(json.dumps(reply).encode(), "application/json"))
    answer = await llm.complete(HELLO)
    assert (answer.text, answer.finish_reason) == (text, reason)
    server.script.append(garbage(b'{"status": "cancelled", "output": []}', "application/json"))
    with pytest.raises(UnavailableError):
        await llm.complete(HELLO)
    await llm.aclose()


async def test_a_messages_reply_is_read_in_the_forms_that_proxies_send(
    claude: AnthropicLLM, server: LLMServer
) -> None:
    use = {"type": "tool_use", "name": "save", "input": '{"text": "tea"}'}
    for content in ([{"type": "text", "text": None}, use, {"type": "server_tool_use"}], "Hello"):
        body = json.dumps({"content": content, "stop_reason": None}).encode()
        server.script.append(garbage(body, "application/json"))
    first, second = [await claude.complete(HELLO) for _ in range(2)]
    assert [call.arguments for call in first.calls] == [{"text": "tea"}]
    assert (first.finish_reason, second.text, second.usage.input_tokens) == ("tools", "Hello", 0)


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (200, {"error": {"message": "slow down", "code": 429}}, RateLimitedError, "slow down"),
        (200, {"error": {"message": "no key", "code": "401"}}, MisconfiguredError, "no key"),
        (200, {"error": "The prompt is too long"}, RequestTooLongError, "too long"),
        (200, {"error": {"message": "upstream died"}}, UnavailableError, "upstream died"),
        (
            200,
            {"choices": [{"finish_reason": "error", "error": {"message": "idle"}}]},
            UnusableReplyError,
            "idle",
        ),
        (200, {"choices": []}, UnusableReplyError, "completion"),
        (
            429,
            [{"error": {"message": "quota", "details": [{"retryDelay": "7s"}]}}],
            RateLimitedError,
            "quota",
        ),
        (500, "<html><head><title>Bad day</title></head><p>x</p></html>", UnavailableError, "day"),
        (403, "<p>No <b>entry</b></p>", MisconfiguredError, "entry"),
        (400, {"detail": "bad words"}, ProviderError, "bad words"),
        (400, [{"error": {"message": "Invalid API key."}}], MisconfiguredError, "API key"),
    ],
)
async def test_errors_show_the_words_of_the_provider_in_one_line(
    chat: ChatLLM, server: LLMServer, *, status: int, body: Any, kind: type[Exception], words: str
) -> None:
    text = body if isinstance(body, str) else json.dumps(body)
    server.respond = lambda _: Reply(status=status, body=text.encode())
    with pytest.raises(kind, match=words) as caught:
        await chat.complete(HELLO)
    shown = str(caught.value)
    assert "\n" not in shown
    assert len(shown) < 700
    assert "<p>" not in shown
    if isinstance(caught.value, RateLimitedError) and status == 429:
        assert caught.value.retry_after == 7


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "This model's maximum context length is 8192 tokens, you requested 9000."),
        (400, "the request exceeds the available context size, try increasing it"),
        (400, "prompt is too long: 210000 tokens > 200000 maximum"),
        (400, "The input token count (9) exceeds the maximum number of tokens allowed (8)"),
        (400, "Prompt contains 40000 tokens, too large for a model with 32768 maximum context"),
        (400, "Input is too long for requested model."),
        (413, "Request Entity Too Large"),
        (413, "Request too large on tokens per minute (TPM): Limit 6000, Requested 9000"),
        (429, "Request too large for gpt-x: Limit 10000, Requested 12000. Must be reduced."),
        (500, "Input length 9000 exceeds context 4096"),
    ],
)
async def test_every_wording_of_a_request_that_is_too_long_is_known(
    chat: ChatLLM, server: LLMServer, status: int, message: str
) -> None:
    server.respond = lambda _: fails(status, message)
    with pytest.raises(RequestTooLongError):
        await chat.complete(HELLO)
    assert len(server.requests) == 1


@pytest.mark.parametrize("message", ["Rate limit reached; try again in 20 s.", "too many requests"])
async def test_a_rate_limit_is_not_a_request_that_is_too_long(
    chat: ChatLLM, server: LLMServer, message: str
) -> None:
    server.respond = lambda _: fails(429, message)
    with pytest.raises(RateLimitedError):
        await chat.complete(HELLO)


async def test_responses_are_asked_for_fewer_tokens_than_the_model_has(server: LLMServer) -> None:
    llm: LLM = ResponsesLLM(
        "m", Provider(base_url=server.base_url_openai, api_key="k"), max_retries=0
    )
    server.respond = refuses_if(
        lambda body: body["max_output_tokens"] > 1_000, 400, "max_output_tokens is above 1000"
    )
    assert (await llm.complete(FORCED)).calls
    assert server.requests[-1].max_tokens == 1_000
    await llm.aclose()
