import base64
import json
import time

import numpy as np
import pytest

from app.providers.embedder import TextForm, TextForms
from app.providers.errors import (
    BadRequestError,
    MisconfiguredError,
    ProviderError,
    RateLimitedError,
    UnavailableError,
)
from app.providers.openai_embedder import OpenAIEmbedder
from app.providers.provider import Provider
from tests.support.openai_server import OpenAIServer, Reply


def answer(*embeddings: object) -> Reply:
    data = [{"index": index, "embedding": value} for index, value in enumerate(embeddings)]
    return Reply(body=json.dumps({"data": data}).encode())


def error(status: int, message: str = "scripted", **headers: str) -> Reply:
    return Reply(status, json.dumps({"error": {"message": message}}).encode(), headers)


async def test_a_request_names_the_model_and_the_wanted_dimensions(
    embeddings: OpenAIServer,
) -> None:
    embedder = OpenAIEmbedder("m", Provider(base_url=embeddings.base_url), dimensions=64)
    await embedder.embed(["one"])
    await embedder.aclose()
    assert (embeddings.requests[0]["model"], embeddings.requests[0]["input"]) == ("m", ["one"])
    assert embeddings.requests[0]["dimensions"] == 64


async def test_dimensions_are_learnt_once(embeddings: OpenAIServer, remote: OpenAIEmbedder) -> None:
    with pytest.raises(MisconfiguredError, match="warm it up first"):
        _ = remote.dimensions
    await remote.warm_up()
    await remote.warm_up()
    assert remote.dimensions == 64
    assert len(embeddings.requests) == 1
    assert "dimensions" not in embeddings.requests[0]


async def test_many_texts_go_in_several_requests(
    embeddings: OpenAIServer, remote: OpenAIEmbedder
) -> None:
    await remote.embed([f"text {number}" for number in range(70)])
    assert sorted(len(request["input"]) for request in embeddings.requests) == [6, 32, 32]


async def test_long_texts_go_in_requests_of_bounded_size(
    embeddings: OpenAIServer, remote: OpenAIEmbedder
) -> None:
    await remote.embed([f"{number} word" * 6_667 for number in range(5)])
    assert [len(request["input"]) for request in embeddings.requests] == [2, 2, 1]


async def test_base64_answers_are_read(embeddings: OpenAIServer, remote: OpenAIEmbedder) -> None:
    numbers = np.array([3, 4], dtype="<f4")
    embeddings.script.append(answer(base64.b64encode(numbers.tobytes()).decode()))
    (vector,) = await remote.embed(["x"])
    np.testing.assert_allclose(vector, [0.6, 0.8])


async def test_a_rate_limit_is_waited_out(embeddings: OpenAIServer) -> None:
    embeddings.script.append(error(429, **{"retry-after": "0.2"}))
    embedder = OpenAIEmbedder("m", Provider(base_url=embeddings.base_url), max_retries=1)
    began = time.monotonic()
    assert len(await embedder.embed(["x"])) == 1
    await embedder.aclose()
    assert time.monotonic() - began >= 0.2
    assert len(embeddings.requests) == 2


@pytest.mark.parametrize(
    ("reply", "expected", "words"),
    [
        (error(429), RateLimitedError, "fewer requests"),
        (error(409), UnavailableError, r"fails \(409\)"),
        (error(400, "too long"), BadRequestError, "too long"),
        (error(401), MisconfiguredError, "check the API key"),
        (error(404), MisconfiguredError, "the model's name"),
        (Reply(body=b"{nonsense"), UnavailableError, "check that the base URL"),
        (answer([1.0, 2.0], [2.0, 1.0]), UnavailableError, "gave 2 vectors for 1 texts"),
        (answer(), UnavailableError, "gave 0 vectors for 1 texts"),
    ],
)
async def test_faults_become_provider_errors(
    embeddings: OpenAIServer,
    remote: OpenAIEmbedder,
    reply: Reply,
    expected: type[ProviderError],
    words: str,
) -> None:
    embeddings.script.append(reply)
    with pytest.raises(expected, match=words):
        await remote.embed(["x"])


async def test_a_server_that_is_too_slow_is_unavailable(embeddings: OpenAIServer) -> None:
    embeddings.script.append(Reply(delay=0.3))
    embedder = OpenAIEmbedder(
        "m", Provider(base_url=embeddings.base_url), max_retries=0, timeout=0.1
    )
    with pytest.raises(UnavailableError, match="timed out"):
        await embedder.embed(["x"])
    await embedder.aclose()


async def test_other_dimensions_than_configured_are_refused(embeddings: OpenAIServer) -> None:
    embedder = OpenAIEmbedder("m", Provider(base_url=embeddings.base_url), dimensions=100)
    with pytest.raises(MisconfiguredError, match="gives 64 dimensions, not the expected 100"):
        await embedder.embed(["x"])
    await embedder.aclose()
    away = OpenAIEmbedder("m", Provider(base_url="http://127.0.0.1:9/v1"), max_retries=0)
    with pytest.raises(UnavailableError, match="cannot be reached"):
        await away.embed(["x"])
    await away.aclose()


async def test_a_prefix_is_part_of_every_text_and_of_its_size(embeddings: OpenAIServer) -> None:
    forms = TextForms(TextForm("q" * 50), TextForm("p" * 1_000, "document"))
    embedder = OpenAIEmbedder("m", Provider(base_url=embeddings.base_url), forms=forms)
    passages = embedder.split("word " * 4_000)
    await embedder.embed(passages * 8)
    await embedder.embed(["a", " "], kind="query")
    await embedder.aclose()
    *stored, query = embeddings.requests
    assert query["input"] == ["q" * 50 + "a", "q" * 50 + "."]
    assert "input_type" not in query
    for request in stored:
        assert request["input_type"] == "document"
        assert all(text.startswith("p" * 1_000 + "word") for text in request["input"])
        assert all(len(text) <= 6_000 for text in request["input"])


async def test_each_part_of_a_long_text_has_the_prefix(embeddings: OpenAIServer) -> None:
    embeddings.refuse = lambda request: (
        Reply(400, b'{"error": {"message": "input is too long"}}')
        if max(map(len, request["input"])) > 700
        else None
    )
    forms = TextForms(passage=TextForm("passage: "))
    embedder = OpenAIEmbedder("m", Provider(base_url=embeddings.base_url), forms=forms)
    (vector,) = await embedder.embed(["word " * 400])
    await embedder.aclose()
    assert len(vector) == 64
    assert all(t.startswith("passage: ") for r in embeddings.requests for t in r["input"])
