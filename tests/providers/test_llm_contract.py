"""What holds for every language model, asked through its SDK at a scripted server."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeAlias

import pytest

from app.providers.anthropic import AnthropicLLM
from app.providers.errors import (
    BadRequestError,
    MisconfiguredError,
    ProviderError,
    RateLimitedError,
    UnavailableError,
)
from app.providers.llm import LLM, Message, Request, Tool, ToolResult
from app.providers.openai import ResponsesLLM
from app.providers.openai_chat import ChatLLM
from app.providers.provider import Provider, ProviderKind
from tests.support.llm_server import (
    LLMServer,
    Reply,
    Usage,
    calls,
    cut,
    cuts_connection,
    fails,
    garbage,
    hangs,
    refuses,
    says,
)

pytestmark = pytest.mark.slow  # three SDKs against a server

KEY = "sk-very-secret-0123456789"
SAVE = Tool("save", "Save a memory.", {"type": "object", "properties": {"text": {}}})
DROP = Tool("drop", "Drop a memory.", {"type": "object"})
HELLO = Request("Be brief.", (Message("user", "Hello"),))
WITH_TOOLS = Request("Be brief.", (Message("user", "Hello"),), tools=(SAVE, DROP))

ADAPTERS: dict[str, Callable[..., LLM]] = {
    "anthropic": AnthropicLLM,
    "openai chat": ChatLLM,
    "openai responses": ResponsesLLM,
}
Make: TypeAlias = Callable[..., LLM]


@pytest.fixture(params=ADAPTERS)
def adapter(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def provider(adapter: str) -> str:
    return adapter.partition(" ")[0]


@pytest.fixture
async def make(adapter: str, provider: str, server: LLMServer) -> AsyncIterator[Make]:
    made: list[LLM] = []

    def make_one(model: str = "test-model", **options: Any) -> LLM:
        url = server.base_url_anthropic if provider == "anthropic" else server.base_url_openai
        kind: ProviderKind = "anthropic" if provider == "anthropic" else "openai"
        given = {"base_url": url, "api_key": KEY, "timeout": 5, "max_retries": 0, **options}
        served = Provider(kind, kind, given.pop("base_url"), api_key=given.pop("api_key"))
        one = ADAPTERS[adapter](model, served, **given)
        made.append(one)
        return one

    yield make_one
    for one in made:
        await one.aclose()


@pytest.fixture
def llm(make: Make) -> LLM:
    return make()


async def test_a_text_is_answered(llm: LLM, server: LLMServer, provider: str) -> None:
    server.script.append(says("Hi."))
    answer = await llm.complete(HELLO)
    assert (answer.text, answer.calls, answer.finish_reason) == ("Hi.", (), "end")
    assert (answer.model, llm.name) == ("test-model", f"{provider}:test-model")
    (sent,) = server.requests
    assert (sent.provider, sent.model) == (provider, "test-model")
    assert (sent.system, sent.messages) == (HELLO.system, HELLO.messages)
    assert (sent.tools, sent.max_tokens) == ((), HELLO.max_tokens)
    assert not {"stream", "tools", "tool_choice", "temperature"} & set(sent.body)


async def test_no_key_or_system_text_is_sent_when_there_is_none(
    make: Make, server: LLMServer
) -> None:
    server.script.append(says("Hi."))
    assert (await make(api_key=None).complete(Request("", HELLO.messages))).text == "Hi."
    (sent,) = server.requests
    assert not {"system", "instructions"} & set(sent.body)
    messages = sent.body.get("messages") or sent.body["input"]
    assert [message["role"] for message in messages] == ["user"]


@pytest.mark.parametrize("choice", ["auto", "any", "none", "save"])
async def test_the_choice_of_tools_is_sent(llm: LLM, server: LLMServer, choice: str) -> None:
    await llm.complete(Request("", HELLO.messages, tools=(SAVE,), tool_choice=choice))
    assert server.requests[0].tool_choice == choice


@pytest.mark.parametrize(
    ("reply", "finish_reason", "text"),
    [(refuses("No."), "refusal", "No."), (cut("Once upon a"), "length", "Once upon a")],
)
async def test_refusals_and_truncated_answers_are_answers(
    llm: LLM, server: LLMServer, reply: Reply, finish_reason: str, text: str
) -> None:
    server.script.append(reply)
    answer = await llm.complete(Request("", HELLO.messages, max_tokens=128_000))
    assert (answer.finish_reason, answer.text) == (finish_reason, text)
    assert server.requests[0].max_tokens == 128_000, "long answers need no streaming"


@pytest.mark.parametrize("verbatim", [True, False])
async def test_calls_and_their_results_go_back(
    llm: LLM, server: LLMServer, provider: str, *, verbatim: bool
) -> None:
    server.script.append(calls(("save", {"text": "é"}), ("drop", {"n": 1}), text="Both."))
    answer = await llm.complete(WITH_TOOLS)
    turn = answer.message if verbatim else Message("assistant", answer.text, answer.calls)
    assert server.requests[0].tools == (SAVE, DROP)
    assert (answer.text, answer.finish_reason) == ("Both.", "tools")
    assert [(call.name, call.arguments) for call in answer.calls] == [
        ("save", {"text": "é"}),
        ("drop", {"n": 1}),
    ]
    first, second = answer.calls
    results = (ToolResult(first.id, "saved"), ToolResult(second.id, "no such n", is_error=True))
    asked = (*WITH_TOOLS.messages, turn, Message("user", "Go on.", results=results))
    await llm.complete(Request("", asked, tools=(SAVE, DROP)))
    if provider == "openai":  # has no word for errors
        results = (results[0], ToolResult(second.id, "Error: no such n"))
    assert server.requests[1].messages == (
        Message("user", "Hello"),
        Message("assistant", "Both.", answer.calls),
        Message("user", "Go on.", results=results),
    )


async def test_a_conversation_may_come_from_another_model(llm: LLM, server: LLMServer) -> None:
    server.script.append(calls(("save", {"text": "a"})))
    answer = await llm.complete(WITH_TOOLS)
    foreign = Message(
        "assistant",
        calls=answer.calls,
        verbatim=type(answer.verbatim)("other:model", "nonsense") if answer.verbatim else None,
    )
    result = Message("user", results=(ToolResult(answer.calls[0].id, "saved"),))
    await llm.complete(Request("", (*WITH_TOOLS.messages, foreign, result), tools=(SAVE,)))
    assert server.requests[1].messages == (*WITH_TOOLS.messages, foreign, result)


async def test_empty_turns_are_left_out(llm: LLM, server: LLMServer) -> None:
    said = (Message("user", "Hello"), Message("assistant"), Message("user", "Still there?"))
    await llm.complete(Request("", said))
    assert server.requests[0].messages == (said[0], said[2])


@pytest.mark.parametrize("raw", ["{not json", "[1]"])
async def test_arguments_that_are_no_object_are_none(llm: LLM, server: LLMServer, raw: str) -> None:
    server.script.append(calls(("save", raw)))
    answer = await llm.complete(WITH_TOOLS)
    (call,) = answer.calls
    assert (call.name, call.arguments, call.raw) == ("save", None, raw)
    result = Message("user", results=(ToolResult(call.id, "not JSON", is_error=True),))
    await llm.complete(Request("", (*HELLO.messages, answer.message, result), tools=(SAVE,)))
    assert server.requests[1].messages[1].calls[0].arguments == {}


async def test_the_cost_of_a_listed_model_is_known(
    make: Make, server: LLMServer, provider: str
) -> None:
    model, cached = {"anthropic": ("claude-opus-5", 0.5), "openai": ("gpt-6-sol", 0.2)}[provider]
    plain, output = {"anthropic": (5, 25), "openai": (2, 10)}[provider]
    server.script.append(says("Hi.", Usage(1_000, 50, 600)))
    spent = (await make(model).complete(HELLO)).usage
    assert spent.cost_usd == pytest.approx((400 * plain + 600 * cached + 50 * output) / 1e6)
    assert (spent.input_tokens, spent.output_tokens, spent.cached_tokens) == (1_000, 50, 600)
    server.script.append(says("Hi.", Usage(1_000, 50, 600)))
    assert (await make("unlisted").complete(HELLO)).usage.cost_usd is None


async def test_passing_faults_are_waited_out(make: Make, server: LLMServer) -> None:
    oops = Reply(status=500, headers={"retry-after": "0.01"}, body=b"oops")
    server.script.extend([fails(429, retry_after=0.2), oops, cuts_connection(), says("Hi.")])
    began = asyncio.get_running_loop().time()
    assert (await make(max_retries=3).complete(HELLO)).text == "Hi."
    assert asyncio.get_running_loop().time() - began >= 0.2
    assert len(server.requests) == 4


@pytest.mark.parametrize(("seconds", "attempts"), [(0.05, 3), (3_600, 1)])
async def test_a_lasting_rate_limit_says_how_long(
    make: Make, server: LLMServer, seconds: float, attempts: int
) -> None:
    server.respond = lambda _: fails(429, retry_after=seconds)
    with pytest.raises(RateLimitedError, match="fewer requests") as caught:
        await make(max_retries=2).complete(HELLO)
    assert (caught.value.retryable, caught.value.retry_after) == (True, seconds)
    assert len(server.requests) == attempts, "long waits are left to the caller"


@pytest.mark.parametrize(
    ("reply", "expected", "words"),
    [
        (fails(503, retry_after=7), UnavailableError, r"fails \(503\)"),
        (fails(400, "prompt is too long"), BadRequestError, "prompt is too long"),
        (fails(401), MisconfiguredError, "check the API key"),
        (fails(404, "no such model"), MisconfiguredError, "no such model.*the model's name"),
        (cuts_connection(), UnavailableError, "cannot be reached"),
        (garbage(), UnavailableError, "check that the base URL"),
    ],
)
async def test_faults_become_provider_errors(
    llm: LLM, server: LLMServer, reply: Reply, expected: type[ProviderError], words: str
) -> None:
    server.script.append(reply)
    with pytest.raises(expected, match=words) as caught:
        await llm.complete(HELLO)
    assert caught.value.retryable is (expected is UnavailableError)
    assert caught.value.retry_after == (7 if "503" in str(caught.value) else None)
    assert len(server.requests) == 1


async def test_a_server_that_is_away_or_too_slow_is_unavailable(
    make: Make, server: LLMServer
) -> None:
    server.script.append(hangs(1.5))
    with pytest.raises(UnavailableError, match="timed out"):
        await make(timeout=0.5).complete(HELLO)
    with pytest.raises(UnavailableError, match="cannot be reached"):
        await make(base_url="http://127.0.0.1:9").complete(HELLO)


async def test_the_key_is_sent_and_never_told(
    make: Make, server: LLMServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.respond = lambda _: fails(401, f"{KEY} is no key")
    with pytest.raises(MisconfiguredError, match=r"\[API key\] is no key") as caught:
        await make().complete(HELLO)
    headers = server.requests[0].headers
    assert KEY in headers.get("x-api-key", headers.get("authorization", ""))
    assert caught.value.__suppress_context__
    assert KEY not in repr(caught.value)
    assert KEY not in caplog.text


@pytest.mark.parametrize("choice", ["any", "save"])
async def test_a_model_that_cannot_be_forced_is_asked_in_words(
    llm: LLM, server: LLMServer, choice: str
) -> None:
    server.script.append(fails(400, 'tool_choice: type "tool" and "any" are not supported.'))
    forced = Request("Be brief.", HELLO.messages, tools=(SAVE,), tool_choice=choice)
    await llm.complete(forced)
    await llm.complete(forced)
    first, *later = server.requests
    assert first.tool_choice == choice
    assert [sent.tool_choice for sent in later] == ["auto", "auto"]
    wish = {"any": "Answer by calling at least one of the tools."}
    expected = f"Be brief.\n\n{wish.get(choice, 'Answer by calling the tool save.')}"
    assert [sent.system for sent in later] == [expected, expected]


async def test_a_refusal_that_stays_is_raised(llm: LLM, server: LLMServer) -> None:
    server.respond = lambda _: fails(400, "tool_choice, temperature, reasoning_effort: no")
    with pytest.raises(BadRequestError):
        await llm.complete(
            Request("", HELLO.messages, tools=(SAVE,), tool_choice="any", temperature=0.5)
        )
    assert len(server.requests) <= 4


async def test_a_refused_temperature_is_left_out_for_good(
    llm: LLM, server: LLMServer, provider: str
) -> None:
    cool = Request("", HELLO.messages, temperature=0.2)
    if provider == "openai":  # to Anthropic's models none is sent
        server.script.append(fails(400, "Unsupported value: 'temperature' is not supported."))
        await llm.complete(cool)
        assert server.requests.pop(0).body["temperature"] == 0.2
    await llm.complete(cool)
    assert ["temperature" in sent.body for sent in server.requests] == [False] * len(
        server.requests
    )
