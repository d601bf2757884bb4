import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.json_values import TooDeepError, TooManyValuesError, check_values, count_values, parse_json

TEXTS = st.text(alphabet=st.sampled_from('ab,[]{}":\\\n é😀')) | st.text(max_size=5)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
    max_leaves=40,
)


def number_of_values(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(number_of_values, inner))


@given(VALUES, st.booleans())
def test_the_count_is_an_upper_bound_that_text_in_strings_does_not_raise(
    value: Any, ascii_only: bool
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only).encode()
    values = number_of_values(value)
    with pytest.raises(TooManyValuesError):
        check_values(text + b" " * (2 * values), values - 1)
    containers = text.count(b"[") + text.count(b"{")
    check_values(text + b" " * (4 * values), values + containers)


@given(VALUES, st.booleans(), st.integers(1, 40))
def test_the_count_does_not_depend_on_chunks(
    value: Any, ascii_only: bool, chunk_bytes: int
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only).encode()
    whole = count_values(text, most=1_000_000)
    assert count_values(text, most=1_000_000, chunk_bytes=chunk_bytes) == whole


def test_commas_in_strings_do_not_count() -> None:
    check_values(json.dumps([',[{\\"' * 1000, "\\", ',"']).encode(), 4)
    with pytest.raises(TooManyValuesError, match="more than 1,000 JSON values"):
        check_values(b"[" + b"[]," * 1000 + b"[]]", 1000)


@given(VALUES, st.booleans())
def test_json_is_read_as_python_reads_it(value: Any, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert parse_json(text.encode()) == json.loads(text)


def test_integers_stay_exact_and_the_last_of_equal_keys_counts() -> None:
    assert parse_json(b'{"a": 1, "a": 123456789012345678901234567890}') == {
        "a": 123456789012345678901234567890
    }


@pytest.mark.parametrize("text", [b"[" * 1_000_000, b'{"a":' * 300 + b"1" + b"}" * 300])
def test_nesting_has_an_end(text: bytes) -> None:
    with pytest.raises(TooDeepError, match="200 levels"):
        parse_json(text)
