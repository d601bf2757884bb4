import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
from typing_extensions import override

from app.providers.embedder import (
    ONE_FORM,
    BatchingEmbedder,
    FakeEmbedder,
    TextForm,
    TextForms,
    TextKind,
    Vector,
)
from app.providers.errors import BadRequestError, RateLimitedError, UnavailableError


class PickyEmbedder(FakeEmbedder):
    """Refuses texts that contain `bad`, and is overloaded by those that contain `busy`."""

    @override
    async def embed(self, texts: Sequence[str], *, kind: TextKind = "passage") -> list[Vector]:
        vectors = await super().embed(texts, kind=kind)
        if any("bad" in text for text in texts):
            raise BadRequestError("a bad text")
        if any("busy" in text for text in texts):
            raise RateLimitedError("too busy")
        return vectors


class ForgetfulEmbedder(FakeEmbedder):
    """Loses the last vector."""

    @override
    async def embed(self, texts: Sequence[str], *, kind: TextKind = "passage") -> list[Vector]:
        return (await super().embed(texts, kind=kind))[:-1]


async def embed_later(embedder: BatchingEmbedder, *texts: str) -> "asyncio.Task[list[Vector]]":
    """Start a call and let it reach its queue."""
    task = asyncio.create_task(embedder.embed(texts))
    await asyncio.sleep(0.01)
    return task


async def test_the_first_goes_at_once_and_the_rest_together() -> None:
    inner = FakeEmbedder(delay=0.05)
    embedder = BatchingEmbedder(inner)
    await asyncio.gather(*[await embed_later(embedder, text) for text in "abcd"])
    assert inner.calls == [["a"], ["b", "c", "d"]]


async def test_a_text_is_embedded_once_however_many_ask() -> None:
    inner = FakeEmbedder(delay=0.02)
    embedder = BatchingEmbedder(inner)
    answers = await asyncio.gather(*(embedder.embed(["same", "same"]) for _ in range(5)))
    assert inner.calls == [["same"]]
    assert all(np.array_equal(vector, answers[0][0]) for answer in answers for vector in answer)


async def test_recent_results_are_remembered_and_the_oldest_forgotten() -> None:
    inner = FakeEmbedder()
    embedder = BatchingEmbedder(inner, cache_entries=2)
    long = "x" * 2_001
    for text in ["a", "b", "a", "c", "a", "b", long, long]:
        await embedder.embed([text])
    assert inner.calls == [["a"], ["b"], ["c"], ["b"], [long]]


async def test_remembered_vectors_cannot_be_changed() -> None:
    (vector,) = await BatchingEmbedder(FakeEmbedder()).embed(["a"])
    with pytest.raises(ValueError, match="read-only"):
        vector[0] = 1


async def test_an_urgent_text_does_not_wait_for_bulk() -> None:
    inner = FakeEmbedder(delay=0.02)
    embedder = BatchingEmbedder(inner)
    bulk = await embed_later(embedder, *(f"fact {number}" for number in range(1_000)))
    await embedder.embed(["query"], kind="query")
    assert not bulk.done()
    assert len(await bulk) == 1_000
    assert [len(call) for call in inner.calls] == [128, 1, *[128] * 6, 104]


async def test_bulk_that_turns_urgent_goes_ahead() -> None:
    inner = FakeEmbedder(delay=0.02)
    embedder = BatchingEmbedder(inner)
    bulk = await embed_later(embedder, *(f"fact {number}" for number in range(300)))
    await embedder.embed(["fact 299"], kind="query")
    await bulk
    assert inner.calls[1] == ["fact 299"]
    assert sum(call.count("fact 299") for call in inner.calls) == 1


async def test_a_bad_text_fails_only_its_own_caller() -> None:
    inner = PickyEmbedder(delay=0.02)
    embedder = BatchingEmbedder(inner)
    first = await embed_later(embedder, "first")
    good = [await embed_later(embedder, f"good {number}", "shared") for number in range(10)]
    bad = await embed_later(embedder, "bad", "shared", "other")
    results = await asyncio.gather(first, *good, bad, return_exceptions=True)
    assert [type(result) for result in results] == [list] * 11 + [BadRequestError]


async def test_a_passing_failure_is_not_remembered() -> None:
    inner = PickyEmbedder()
    embedder = BatchingEmbedder(inner)
    for _ in range(2):
        with pytest.raises(RateLimitedError):
            await embedder.embed(["busy"])
    assert inner.calls == [["busy"], ["busy"]]


async def test_a_wrong_number_of_vectors_is_an_error() -> None:
    with pytest.raises(UnavailableError, match="gave 1 vectors for 2 texts"):
        await BatchingEmbedder(ForgetfulEmbedder()).embed(["a", "b"])


async def test_a_cancelled_caller_breaks_nobody_and_its_texts_are_dropped() -> None:
    inner = FakeEmbedder(delay=0.05)
    embedder = BatchingEmbedder(inner)
    running = await embed_later(embedder, "running")
    waiting = await embed_later(embedder, "only mine", "shared")
    other = await embed_later(embedder, "shared", "running")
    running.cancel()
    waiting.cancel()
    assert len(await other) == 2
    assert inner.calls == [["running"], ["shared"]]


async def test_close_fails_those_who_wait() -> None:
    embedder = BatchingEmbedder(FakeEmbedder(delay=10))
    running = await embed_later(embedder, "running")
    waiting = await embed_later(embedder, "waiting")
    await embedder.aclose()
    for task in (running, waiting):
        with pytest.raises(UnavailableError, match="was closed"):
            await task


async def test_many_concurrent_callers_get_what_they_asked_for() -> None:
    inner = FakeEmbedder(delay=0.001)
    embedder = BatchingEmbedder(inner, cache_entries=10)
    expected = {
        text: vector for text in map(str, range(50)) for vector in await inner.embed([text])
    }

    async def call(number: int) -> None:
        texts = [str((number * step) % 50) for step in range(1, 8)]
        answer = await embedder.embed(texts, kind="passage" if number % 3 else "query")
        for text, vector in zip(texts, answer, strict=True):
            np.testing.assert_array_equal(vector, expected[text])

    await asyncio.gather(*(call(number) for number in range(300)))


async def test_a_query_takes_a_passages_vector_only_if_both_have_one_form() -> None:
    for forms, calls in [(ONE_FORM, 1), (TextForms(query=TextForm("query: ")), 2)]:
        inner = FakeEmbedder()
        inner.forms = forms
        embedder = BatchingEmbedder(inner)
        for _ in range(2):
            await embedder.embed(["tea"])
            await embedder.embed(["tea"], kind="query")
        assert len(inner.calls) == calls
