import asyncio

import numpy as np
import pytest

from app.providers.embedder import Embedder
from app.providers.errors import UnavailableError


async def test_vectors_have_unit_length_and_the_promised_dimensions(any_embedder: Embedder) -> None:
    await any_embedder.warm_up()
    vectors = await any_embedder.embed(["a red bicycle", "", "🎉", "x" * 5_000])
    assert [vector.shape for vector in vectors] == [(any_embedder.dimensions,)] * 4
    assert {vector.dtype for vector in vectors} == {np.dtype(np.float32)}
    assert await any_embedder.embed([]) == []
    assert [float(np.linalg.norm(vector)) for vector in vectors] == pytest.approx([1] * 4, abs=1e-5)


async def test_similar_texts_are_nearer_than_others(any_embedder: Embedder) -> None:
    query, near, far = await any_embedder.embed(
        ["the cat sleeps on the sofa", "a cat is on the sofa", "quarterly tax declaration form"],
        kind="query",
    )
    assert query @ near > query @ far + 0.2


async def test_a_text_has_the_same_vector_in_any_company_and_order(any_embedder: Embedder) -> None:
    texts = [f"note {number} " + "about the garden " * (number % 7) for number in range(100)]
    together = await any_embedder.embed(texts)
    alone = [(await any_embedder.embed([text], kind="query"))[0] for text in texts[:10]]
    for one, other in zip(alone, together, strict=False):
        np.testing.assert_allclose(one, other, atol=1e-5)


async def test_concurrent_callers_get_their_own_vectors(any_embedder: Embedder) -> None:
    texts = [f"fact number {number}" for number in range(40)]
    expected = await any_embedder.embed(texts)
    answers = await asyncio.gather(*(any_embedder.embed([text]) for text in texts))
    np.testing.assert_allclose([answer[0] for answer in answers], expected, atol=1e-5)


async def test_a_long_text_is_cut_at_the_ends_of_sentences(any_embedder: Embedder) -> None:
    assert any_embedder.split("") == any_embedder.split(" \n\t ") == []
    assert any_embedder.split(" Two sentences. That fit.\n") == ["Two sentences. That fit."]
    text = " ".join(f"Sentence number {number} says little." for number in range(2_000))
    passages = any_embedder.split(text)
    assert len(passages) > 10
    assert all(passage.endswith(".") for passage in passages)
    assert all(f"number {number} says" in "".join(passages) for number in range(2_000))


async def test_after_close_a_call_fails_clearly(any_embedder: Embedder) -> None:
    await any_embedder.aclose()
    with pytest.raises(UnavailableError, match="closed"):
        await any_embedder.embed(["anything"])
