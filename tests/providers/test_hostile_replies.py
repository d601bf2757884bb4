"""Whatever an endpoint replies, a call returns a value or raises a ProviderError."""

import asyncio
import gzip
import json
import random
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import pytest

from app.json_values import UNSTORABLE
from app.providers.anthropic import AnthropicLLM
from app.providers.errors import MisconfiguredError, ProviderError, UnavailableError
from app.providers.llm import LLM, Message, Request, Tool, ToolResult, UnusableReplyError
from app.providers.openai import ResponsesLLM
from app.providers.openai_chat import ChatLLM
from app.providers.openai_embedder import OpenAIEmbedder
from app.providers.provider import Provider, ProviderKind
from tests.support.llm_server import LLMServer, Reply, calls, garbage, llm_server
from tests.support.llm_wire import write_anthropic, write_chat, write_responses
from tests.support.openai_server import OpenAIServer
from tests.support.openai_server import Reply as Embeddings

pytestmark = pytest.mark.slow  # three SDKs against a server

SAVE = Tool("save", "Save a memory.", {"type": "object", "properties": {"text": {}}})
HELLO = Request("Be brief.", (Message("user", "Hello"),), tools=(SAVE,))
WRITE: dict[type[LLM], Callable[[Reply, str, int], dict[str, Any]]] = {
    AnthropicLLM: write_anthropic,
    ChatLLM: write_chat,
    ResponsesLLM: write_responses,
}
TOKENS: dict[type[LLM], tuple[str, str]] = {
    AnthropicLLM: ("input_tokens", "output_tokens"),
    ChatLLM: ("prompt_tokens", "completion_tokens"),
    ResponsesLLM: ("input_tokens", "output_tokens"),
}
MUTATIONS = 60


@pytest.fixture(params=WRITE, ids=lambda adapter: adapter.__name__)
async def llm(request: pytest.FixtureRequest, server: LLMServer) -> AsyncIterator[Any]:
    adapter = request.param
    url = server.base_url_anthropic if adapter is AnthropicLLM else server.base_url_openai
    kind: ProviderKind = "anthropic" if adapter is AnthropicLLM else "openai"
    made = adapter("test-model", Provider(kind, kind, url), timeout=5, max_retries=0)
    yield made
    await made.aclose()


def wire(llm: LLM, reply: Reply | None = None) -> dict[str, Any]:
    reply = reply or calls(("save", {"text": "a"}), ("save", {}), text="Both.")
    return WRITE[type(llm)](reply, "test-model", 1)


def json_reply(value: Any) -> Reply:
    return garbage(json.dumps(value).encode(), "application/json")


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


ODD: list[Any] = [
    *(None, True, False, 0, -1, 1.5, 10**30, -(10**30), 1e308, "", "7", "\ud800", "\x00", "😀"),
    *([], {}, [None], ["x"], [[]], {"type": "text"}, [{"type": "text", "text": "x"}], {"a": 1}),
    *(nested(90), nested(180), nested(400), "x" * 5_000, "tool_use", "function_call", "message"),
]


def copied(value: Any) -> Any:
    return json.loads(json.dumps(value))


def mutated(value: Any, chance: random.Random) -> Any:
    """Return a copy in which one or a few places hold something odd, twice, or nothing."""
    value = copied(value)
    for _ in range(chance.choice([1, 1, 1, 2, 4])):
        places = [(value, step) for step in _steps(value)]
        for container, step in places:
            places.extend((container[step], inner) for inner in _steps(container[step]))
        if not places:
            return value
        container, step = chance.choice(places)
        if isinstance(container, dict) and chance.random() < 0.2:
            del container[step]
        elif isinstance(container, list) and chance.random() < 0.2:
            container.append(copied(container[step]))
        else:
            container[step] = copied(chance.choice(ODD))
    return value


def _steps(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value)
    return list(range(len(value))) if isinstance(value, list) else []


async def test_a_mutated_reply_is_an_answer_or_a_provider_error(
    llm: LLM, server: LLMServer
) -> None:
    chance, answered = random.Random(11), 0  # noqa: S311
    for _ in range(MUTATIONS):
        server.script.append(json_reply(mutated(wire(llm), chance)))
        try:
            answer = await llm.complete(HELLO)
        except UnusableReplyError as error:
            answer = error.completion
        except ProviderError:
            continue
        answered += 1
        spent = answer.usage
        for tokens in (spent.input_tokens, spent.output_tokens, spent.cached_tokens):
            assert type(tokens) is int
            assert 0 <= tokens <= 300_000_000
        assert spent.cost_usd is None or 0 <= spent.cost_usd < 1e9
        texts = [answer.text, answer.model, answer.finish_reason]
        texts += [part for call in answer.calls for part in (call.id, call.name)]
        assert not any(map(UNSTORABLE.search, texts))
        assert len(answer.model) <= 200
        server.script.append(json_reply(wire(llm)))
        results = tuple(ToolResult(call.id, "ok") for call in answer.calls)
        said = (*HELLO.messages, answer.message, Message("user", "Go on.", results=results))
        with suppress(ProviderError):  # the server may refuse its own nonsense
            await llm.complete(Request("", said, tools=(SAVE,)))
    assert answered > MUTATIONS / 2


async def test_an_impossible_count_costs_the_count_alone(llm: LLM, server: LLMServer) -> None:
    received, sent = TOKENS[type(llm)]
    counts: list[Any] = [10**30, -1, "seven", "-7", None, [], float("inf")]
    for count in counts:
        reply = wire(llm)
        reply["usage"] |= {received: count, sent: 9}
        server.script.append(garbage(json.dumps(reply).replace("Infinity", "1e999").encode()))
        answer = await llm.complete(HELLO)
        assert (answer.text, len(answer.calls)) == ("Both.", 2)
        assert (answer.usage.input_tokens, answer.usage.output_tokens) == (0, 9)
    for count in ("7", 7.0, 7.5):
        reply = wire(llm)
        reply["usage"] |= {received: count}
        server.script.append(json_reply(reply))
        assert (await llm.complete(HELLO)).usage.input_tokens == 7


async def test_a_reply_without_content_is_accounted_for(llm: LLM, server: LLMServer) -> None:
    reply = {**wire(llm), "content": [{"x": 5}], "choices": [{"x": 5}], "output": {"x": 5}}
    server.script.append(json_reply(reply))
    with pytest.raises(UnusableReplyError, match="something else than a completion") as caught:
        await llm.complete(HELLO)
    paid = caught.value.completion
    assert (paid.usage.input_tokens, paid.usage.output_tokens) == (100, 20)
    assert (paid.model, paid.finish_reason, paid.calls) == ("test-model", "unusable", ())


async def test_arguments_are_read_within_limits(llm: LLM, server: LLMServer) -> None:
    for arguments, is_read in (
        ('{"text": "a"}', True),
        ('{"text": "\\ud800"}', False),
        ('{"a": ' + "[" * 63 + "]" * 63 + "}", True),
        ('{"a": ' + "[" * 64 + "]" * 64 + "}", False),
        ('{"a": ' + "[" * 9_000 + "]" * 9_000 + "}", False),
        ('{"a": "' + "x" * (1 << 20) + '"}', False),
    ):
        server.script.append(calls(("save", arguments)))
        (call,) = (await llm.complete(HELLO)).calls
        assert (call.arguments is not None) is is_read, arguments[:20]


async def test_redirects_are_not_followed(
    llm: LLM, server: LLMServer, embeddings: OpenAIServer
) -> None:
    embedder = OpenAIEmbedder("m", Provider(base_url=embeddings.base_url), max_retries=0, timeout=5)
    async with llm_server() as elsewhere:
        headers = {"location": elsewhere.url}
        for status in (301, 307):
            server.script.append(Reply(status=status, headers=headers, body=b""))
            with pytest.raises(MisconfiguredError, match="redirects are not followed"):
                await llm.complete(HELLO)
            embeddings.script.append(Embeddings(status=status, headers=headers, body=b""))
            with pytest.raises(MisconfiguredError, match="redirects are not followed"):
                await embedder.embed(["secret"])
        assert elsewhere.requests == []
    await embedder.aclose()


BOMB = gzip.compress(b" " * (64 << 20))


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (garbage(b'"' + b"x" * (64 << 20), "application/json"), "longer than 2 MiB"),
        (Reply(body=BOMB, headers={"content-encoding": "gzip"}), "something else"),
        (garbage(b"[" + b"[]," * 600_000 + b"0]"), "more than 200,000 JSON values"),
        (garbage(b"[" * 1_000_000), "nested deeper|more than 200,000"),
        (Reply(status=500, body=b"x" * (64 << 20)), r"fails \(500\)"),
    ],
    ids=["long", "gzip", "values", "depth", "long error"],
)
async def test_an_endless_or_packed_reply_is_cut(
    llm: LLM, server: LLMServer, reply: Reply, words: str
) -> None:
    server.script.append(reply)
    tracemalloc.start()
    try:
        with pytest.raises(UnavailableError, match=words):
            await llm.complete(HELLO)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * len(reply.body or b"") or peak < 30 << 20
    assert len(server.requests) == 1


def vectors(*embeddings_: Any) -> bytes:
    data = [{"index": n, "embedding": one} for n, one in enumerate(embeddings_)]
    return json.dumps({"data": data}).encode()


ODD_EMBEDDINGS = [
    vectors([1.0, None]),
    vectors([float("nan"), 1.0]),
    vectors([0.0, 0.0]),
    vectors([[1.0], [2.0]]),
    vectors([10**400]),
    vectors([1.0] * 8_193),
    vectors("AAA"),
    vectors("\ud800"),
    vectors({}),
    vectors([]),
    vectors([1.0], [1.0]),
    b'{"data": [{"index": null, "embedding": [1]}, {"index": 1, "embedding": [1]}]}',
    b'{"data": {"index": 0}}',
    b'{"data": [null]}',
    b"[" * 100_000,
    b'{"data": [' + b"[]," * 300_000 + b"0]}",
    b'{"data": ["' + b"x" * (5 << 20) + b'"]}',
]


async def test_odd_embeddings_are_refused(embeddings: OpenAIServer, remote: OpenAIEmbedder) -> None:
    for body in ODD_EMBEDDINGS:
        embeddings.script.append(Embeddings(body=body))
        with pytest.raises(UnavailableError):
            await remote.embed(["a"])
        assert [len(vector) for vector in await remote.embed(["a"])] == [64]


async def test_a_reply_that_never_ends_is_left_in_time() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n")
        with suppress(ConnectionError):
            while True:
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.01)

    async with await asyncio.start_server(drip, "127.0.0.1", 0) as slow:
        url = f"http://127.0.0.1:{slow.sockets[0].getsockname()[1]}"
        llm = ChatLLM("m", Provider(base_url=url), timeout=0.2, max_retries=0)
        with pytest.raises(UnavailableError, match=r"longer than 0\.4 seconds"):
            await llm.complete(HELLO)
        await llm.aclose()


async def test_odd_waits_are_bounded(llm: LLM, server: LLMServer) -> None:
    for wait in ("1e308", "inf", "nan", "-5", "x", "Mon, 99 Foo 99999 99:99:99 GMT"):
        server.script.append(Reply(status=429, headers={"retry-after": wait}, body=b"{}"))
        with pytest.raises(ProviderError) as caught:
            await llm.complete(HELLO)
        assert caught.value.retry_after is None or 0 <= caught.value.retry_after <= 86_400


ERRORS: list[Any] = [
    {"error": []},
    {"error": "x"},
    {"error": {"message": None, "code": []}},
    {"error": {"message": "\ud800", "code": {"a": 1}, "type": 5}},
    [],
    5,
    nested(400),
]


async def test_odd_errors_are_provider_errors(llm: LLM, server: LLMServer) -> None:
    for status in (400, 401, 429, 500):
        for body in ERRORS:
            reply = Reply(status=status, body=json.dumps(body).encode())
            server.script.extend([reply] * 4)  # the request is repeated without optional features
            with pytest.raises(ProviderError):
                await llm.complete(HELLO)
            server.script.clear()
