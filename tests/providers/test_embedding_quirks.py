"""Servers that speak nearly the API of OpenAI: what they refuse, and how they answer."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from app.providers.capabilities import Capabilities
from app.providers.embedder import FakeEmbedder, Outcome, is_about_text
from app.providers.errors import (
    MisconfiguredError,
    ProviderError,
    RateLimitedError,
    RequestTooLongError,
    UnavailableError,
)
from app.providers.openai_embedder import OpenAIEmbedder
from app.providers.provider import Provider
from tests.support.openai_server import OpenAIServer, Reply

Answers = list[dict[str, Any]]
Request = dict[str, Any]
TEXTS = [f"fact number {number}" for number in range(40)]


def error(status: int, message: str) -> Reply:
    return Reply(status, json.dumps({"error": {"message": message}}).encode())


def refusing(status: int, message: str, when: Callable[[Request], bool]) -> Any:
    return lambda request: error(status, message) if when(request) else None


def without_index(answers: Answers, *places: int) -> Answers:
    return [
        {k: v for k, v in one.items() if k != "index" or (places and n not in places)}
        for n, one in enumerate(answers)
    ]


async def assert_right(outcomes: list[Outcome], texts: list[str]) -> None:
    for outcome, expected in zip(outcomes, await FakeEmbedder().embed(texts), strict=True):
        assert not isinstance(outcome, ProviderError), outcome
        np.testing.assert_allclose(outcome, expected, atol=1e-5)


@pytest.mark.parametrize(
    "shape",
    [
        lambda answers: {"data": without_index(answers)},
        lambda answers: {"data": without_index(answers, 2)[::-1]},
        lambda answers: {"data": [one | {"index": None} for one in answers], "usage": "none"},
        lambda answers: {"data": [one | {"index": 7} for one in answers]},
        lambda answers: {"data": [one | {"index": one["index"] + 1} for one in answers][::-1]},
        lambda answers: [one["embedding"] for one in answers],
        lambda answers: {"embeddings": [[one["embedding"]] for one in answers]},
    ],
)
async def test_the_order_of_embeddings_is_that_of_their_indexes_or_of_the_list(
    embeddings: OpenAIServer, remote: OpenAIEmbedder, shape: Callable[[Answers], Any]
) -> None:
    embeddings.shape = shape
    await assert_right(await remote.embed_each(TEXTS[:5]), TEXTS[:5])
    embeddings.shape = lambda answers: shape(answers[:1])
    await assert_right(await remote.embed_each(TEXTS[:1]), TEXTS[:1])


@pytest.mark.parametrize("message", ["unknown argument: encoding_format", "validation failed"])
async def test_base64_is_not_requested_again_once_it_is_refused(
    embeddings: OpenAIServer, remote: OpenAIEmbedder, message: str
) -> None:
    embeddings.refuse = refusing(422, message, lambda r: "encoding_format" in r)
    for _ in range(2):
        await assert_right(await remote.embed_each(TEXTS[:2]), TEXTS[:2])
    assert "encoding_format" in embeddings.requests[0]
    assert "encoding_format" not in embeddings.requests[-1]
    assert len(embeddings.requests) <= 5


async def test_longer_vectors_are_cut_if_dimensions_are_refused(embeddings: OpenAIServer) -> None:
    embeddings.refuse = refusing(400, "dimensions: extra input", lambda r: "dimensions" in r)
    embedder = OpenAIEmbedder(
        "m", Provider(base_url=embeddings.base_url), dimensions=16, max_retries=0
    )
    [vector] = await embedder.embed(["x"])
    await embedder.aclose()
    assert (len(vector), round(float(np.linalg.norm(vector)), 5)) == (16, 1.0)
    longer = OpenAIEmbedder(
        "m", Provider(base_url=embeddings.base_url), dimensions=65, max_retries=0
    )
    with pytest.raises(MisconfiguredError, match="not the expected 65"):
        await longer.embed(["x"])
    await longer.aclose()


async def test_the_number_of_texts_a_request_is_halved_and_remembered(
    embeddings: OpenAIServer, remote: OpenAIEmbedder
) -> None:
    embeddings.refuse = refusing(400, "at most 5 inputs, please", lambda r: len(r["input"]) > 5)
    await assert_right(await remote.embed_each(TEXTS), TEXTS)
    before = len(embeddings.requests)
    await assert_right(await remote.embed_each(TEXTS), TEXTS)
    assert len(embeddings.requests) - before == 10


async def test_limits_are_known_to_other_processes_and_forgotten(embeddings: OpenAIServer) -> None:
    known = Capabilities()
    embeddings.refuse = refusing(400, "at most 5 inputs, please", lambda r: len(r["input"]) > 5)
    for calls in (9, 4, 9):
        embedder = OpenAIEmbedder("m", Provider(base_url=embeddings.base_url), capabilities=known)
        embeddings.requests.clear()
        await assert_right(await embedder.embed_each(TEXTS[:12]), TEXTS[:12])
        await embedder.aclose()
        assert len(embeddings.requests) <= calls
        if calls == 4:
            [limit] = known.all()
            assert (limit.model.name, limit.feature, limit.limit) == ("m", "embedding_texts", 3)
            known.forget()


async def test_the_size_of_a_request_is_halved_and_remembered(
    embeddings: OpenAIServer, remote: OpenAIEmbedder
) -> None:
    texts = [f"{number} " * 200 for number in range(100, 120)]
    embeddings.refuse = refusing(
        413, "maximum of 2048 tokens a request", lambda r: len("".join(r["input"])) > 5_000
    )
    await assert_right(await remote.embed_each(texts), texts)
    before = len(embeddings.requests)
    await assert_right(await remote.embed_each(texts), texts)
    assert len(embeddings.requests) - before <= 10
    await remote.embed_each(TEXTS[:32])
    assert len(embeddings.requests) - before <= 11, "short texts go together, as before"


async def test_texts_that_the_model_does_not_read_are_cut(
    embeddings: OpenAIServer, remote: OpenAIEmbedder
) -> None:
    embeddings.refuse = refusing(
        500, "the prompt exceeds the context window", lambda r: max(map(len, r["input"])) > 1_000
    )
    long = " ".join(f"Sentence {number}." for number in range(400))
    outcomes = await remote.embed_each([*TEXTS[:3], long, long[:4_000], TEXTS[3]])
    await assert_right([*outcomes[:3], outcomes[5]], TEXTS[:4])
    assert [getattr(outcome, "shape", outcome) for outcome in outcomes[3:5]] == [(64,)] * 2
    assert len(embeddings.requests) <= 14
    assert all(len(passage) <= 1_000 for passage in remote.split(long))
    embeddings.refuse = refusing(400, "input too long", lambda r: r["input"] != ["test"])
    [outcome] = await remote.embed_each(["word " * 80])
    assert isinstance(outcome, RequestTooLongError)


@pytest.mark.parametrize(
    "misbehave",
    [
        refusing(400, "no", lambda r: any("bad" in text for text in r["input"])),
        refusing(503, "crash", lambda r: any("bad" in text for text in r["input"])),
        lambda r: Reply(delay=1) if any("bad" in text for text in r["input"]) else None,
    ],
)
async def test_one_bad_text_fails_alone(embeddings: OpenAIServer, misbehave: Any) -> None:
    remote = OpenAIEmbedder("m", Provider(base_url=embeddings.base_url), max_retries=0, timeout=0.2)
    embeddings.refuse = misbehave
    texts = [*TEXTS[:6], "a bad text", *TEXTS[6:11]]
    outcomes = await remote.embed_each(texts)
    bad = outcomes.pop(6)
    assert isinstance(bad, ProviderError)
    assert is_about_text(bad)
    await assert_right(outcomes, TEXTS[:11])
    await remote.aclose()


@pytest.mark.parametrize("numbers", [[None] * 64, [float("nan")] * 64, [0] * 64, [], None, "%"])
async def test_a_text_without_a_usable_vector_fails_alone(
    embeddings: OpenAIServer, remote: OpenAIEmbedder, numbers: Any
) -> None:
    def shape(answers: Answers) -> Any:
        inputs = embeddings.requests[-1]["input"]
        pairs = zip(inputs, answers, strict=True)
        return [one | ({"embedding": numbers} if "bad" in text else {}) for text, one in pairs]

    embeddings.shape = shape
    bad, *others = await remote.embed_each(["bad", *TEXTS[:9]])
    assert isinstance(bad, ProviderError)
    await assert_right(others, TEXTS[:9])


@pytest.mark.parametrize(
    ("reply", "expected", "calls"),
    [
        (error(401, "who are you"), MisconfiguredError, 3),
        (error(429, "slower"), RateLimitedError, 3),
        (error(500, "out of memory"), UnavailableError, 4),
        (error(400, "input_type is required"), ProviderError, 5),
        (Reply(body=b'{"error": "Unexpected endpoint"}'), MisconfiguredError, 3),
        (Reply(body=b'{"error": "no slot is free"}'), UnavailableError, 4),
        (Reply(body=b'{"error": {"message": "busy", "code": "429"}}'), RateLimitedError, 3),
    ],
)
async def test_a_server_that_fails_is_not_asked_for_each_text(
    embeddings: OpenAIServer,
    remote: OpenAIEmbedder,
    reply: Reply,
    expected: type[ProviderError],
    calls: int,
) -> None:
    embeddings.refuse = lambda _request: reply
    texts = [f"text {number}" for number in range(90)]
    outcomes = await remote.embed_each(texts)
    assert {type(outcome) for outcome in outcomes} <= {outcomes[0].__class__}
    assert isinstance(outcomes[0], expected)
    assert len(embeddings.requests) <= calls


async def test_the_calls_for_many_bad_texts_are_bounded(
    embeddings: OpenAIServer, remote: OpenAIEmbedder
) -> None:
    embeddings.refuse = refusing(400, "no", lambda r: any("bad" in text for text in r["input"]))
    outcomes = await remote.embed_each([f"bad {number}" for number in range(128)])
    assert all(isinstance(outcome, ProviderError) for outcome in outcomes)
    assert len(embeddings.requests) <= 72


async def test_a_rate_limit_keeps_the_texts_that_are_embedded(
    embeddings: OpenAIServer, remote: OpenAIEmbedder
) -> None:
    embeddings.refuse = lambda _: error(429, "slower") if len(embeddings.requests) > 2 else None
    outcomes = await remote.embed_each([f"text {number}" for number in range(1_280)])
    assert sum(not isinstance(outcome, ProviderError) for outcome in outcomes) == 64
    assert len(embeddings.requests) <= 10, "the requests that had not begun are not made"


async def test_a_server_that_never_answers_delays_few_calls(embeddings: OpenAIServer) -> None:
    embedder = OpenAIEmbedder("m", Provider(base_url=embeddings.base_url), timeout=0.2)
    embeddings.refuse = lambda _request: Reply(delay=5)
    for _ in range(3):
        [outcome] = await embedder.embed_each(["x"])
        assert isinstance(outcome, UnavailableError)
        assert not is_about_text(outcome)
    await embedder.aclose()
    assert len(embeddings.requests) == 2


async def test_a_passing_failure_is_waited_out(embeddings: OpenAIServer) -> None:
    embedder = OpenAIEmbedder("m", Provider(base_url=embeddings.base_url), max_retries=1)
    embeddings.script.append(error(503, "loading the model"))
    await assert_right(await embedder.embed_each(TEXTS[:2]), TEXTS[:2])
    await embedder.aclose()
    assert len(embeddings.requests) == 2
