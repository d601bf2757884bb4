import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.tools.memories import memory_id, memory_uri, parse_id
from app.tools.tool import MemoryNotFoundError

LABELS = st.lists(
    st.text(
        st.characters(exclude_categories=["Cc", "Cs"]) | st.sampled_from("/%.?#\t"),
        min_size=1,
        max_size=20,
    ),
    max_size=16,
)
KEYS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=60)


@given(LABELS, KEYS | st.sampled_from([".", "..", "%2F", "a/b"]))
def test_ids_and_uris_lead_back(labels: list[str], key: str) -> None:
    for address in (memory_id(labels, key), memory_uri(labels, key)):
        assert parse_id(address) == (labels, key)


@given(LABELS, KEYS)
def test_uris_are_ascii_without_steps_up(labels: list[str], key: str) -> None:
    uri = memory_uri(labels, key)
    assert re.fullmatch(r"memory:///[A-Za-z0-9._~%/-]*", uri)
    assert not {".", ".."} & set(uri.split("/"))


@given(st.tuples(LABELS, KEYS), st.tuples(LABELS, KEYS))
def test_different_memories_have_different_ids(
    one: tuple[list[str], str], other: tuple[list[str], str]
) -> None:
    assert (memory_id(*one) == memory_id(*other)) == (one == other)


def test_ids_can_be_read_by_people() -> None:
    assert memory_id(["users", "ann@example.com"], "日記 1") == "users/ann@example.com/日記 1"
    assert memory_uri(["users", "ann"], "日") == "memory:///users/ann/%E6%97%A5"


def test_other_texts_name_no_memory() -> None:
    for text in ("/a", "a//b", "a/" * 17 + "k", "%00", "a/b%00", "x" * 513):
        with pytest.raises(MemoryNotFoundError, match="Take an id as search_memories returns it"):
            parse_id(text)
