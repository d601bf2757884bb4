"""Encoded data in values is no text: it is left out of passages, and the words around it stay."""

import base64
import textwrap
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.encoded_data import remove_encoded_data
from app.indexing.passages import texts_at

DATA = bytes(n * 37 % 251 for n in range(600))
ENCODED = base64.b64encode(DATA).decode()


@pytest.mark.parametrize(
    "encoded",
    [
        ENCODED,
        base64.urlsafe_b64encode(DATA).decode(),
        f"data:image/png;base64,{ENCODED}",
        f"data:;base64,{ENCODED[:100]}" + " " * 100,
        "\n".join(textwrap.wrap(ENCODED, 76)),
        DATA.hex(),
    ],
)
def test_encoded_data_is_left_out(encoded: str) -> None:
    for text in texts_at({"before": "a cat", "image": encoded, "name": "the dog"}, "$"):
        assert len(text) < 160
        assert "a cat" in text
        assert "the dog" in text
    assert [text.split() for text in texts_at({"a": [f"see {encoded} here"]}, "a[0]")] == [
        ["see", "here"]
    ]


@pytest.mark.parametrize(
    "text",
    [
        "Donaudampfschifffahrtsgesellschaft" * 10,
        "https://example.com/" + "how-to-do-it/" * 40,
        "我们家有两只小猫和一只狗" * 50,
        "INV-2024-0093/" * 30,
        "x" * 500,
        "CONSTANT_NAME_" * 40,
    ],
)
def test_words_and_addresses_are_kept(text: str) -> None:
    assert remove_encoded_data(text) == text


@given(st.text(max_size=300), st.binary(min_size=300, max_size=600), st.text(max_size=300))
def test_the_words_around_encoded_data_stay(before: str, data: bytes, after: str) -> None:
    shortened = remove_encoded_data(f"{before} {base64.b64encode(data).decode()} {after}")
    assert shortened.startswith(remove_encoded_data(before)[:200])
    assert len(shortened) <= len(before) + len(after) + len(data) * 4 // 3 + 6


@pytest.mark.parametrize(
    "part", ["a", "a" * 59 + " ", "data:", "data:a;", "A1b" * 30 + "\n", "=\n"]
)
def test_it_takes_linear_time(part: str) -> None:
    text = part * (300_000 // len(part))
    began = time.process_time()
    remove_encoded_data(text)
    assert time.process_time() - began < 1
