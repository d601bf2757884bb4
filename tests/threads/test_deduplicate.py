import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.threads.deduplicate import MessageObject, canonical_text, count_repeated, deduplicate
from tests.support.threads import says


def talk(text: str) -> list[MessageObject]:
    return [says(letter) for letter in text]


def known(thread: list[MessageObject], sent: list[MessageObject]) -> int:
    return count_repeated(thread[: len(sent)], thread[-len(sent) :] if sent else [], sent)


@pytest.mark.parametrize(
    ("thread", "sent", "repeated"),
    [
        (talk("abcd"), talk("abcdef"), 4),
        (talk("abcd"), talk("ab"), 2),  # overtaken by a later request
        (talk("abcd"), talk("cdef"), 2),  # a window
        (talk("abcd"), talk("xy"), 0),
        (talk("abcd"), talk("bc"), 0),
        ([], talk("ab"), 0),
        ([says("yes", "1")], [says("yes", "2")], 0),  # ids say more than words
        ([says("yes", "1")], [says("Yes.", "1")], 1),
        ([says("yes", "1")], [says("yes")], 1),
        ([says("yes", "position:0")], [says("yes", "7")], 1),
    ],
)
def test_repeated_messages_are_counted(
    thread: list[MessageObject], sent: list[MessageObject], repeated: int
) -> None:
    assert known(thread, sent) == repeated


def test_langchain_and_openai_say_the_same_in_other_members() -> None:
    human: MessageObject = {
        "type": "human",
        "content": "Hi",
        "additional_kwargs": {},
        "id": None,
        "name": None,
    }
    assert canonical_text(human) == canonical_text(says("Hi"))
    assert canonical_text({"type": "ai", "content": "Hi"}) == canonical_text(
        says("Hi", role="assistant")
    )
    assert canonical_text(says("Hi", role="assistant")) != canonical_text(says("Hi"))


@given(st.text("ab", max_size=8), st.lists(st.integers(0, 8), max_size=6))
def test_a_growing_conversation_is_kept_as_it_is_in_whatever_order_it_arrives(
    conversation: str, lengths: list[int]
) -> None:
    thread: list[MessageObject] = []
    for length in lengths:
        sent = talk(conversation[:length])
        thread += sent[known(thread, sent) :]
    assert thread == talk(conversation[: max(lengths, default=0)])


@given(st.lists(st.text("abc", max_size=8), max_size=5))
def test_messages_with_ids_are_added_once_however_they_are_sent(requests: list[str]) -> None:
    thread: dict[str, MessageObject] = {}
    for request in requests:
        sent = [says(letter, letter) for letter in request]
        for message in deduplicate(sent, thread).new:
            assert message["id"] not in thread
            thread[message["id"]] = message
    assert set(thread) == set("".join(requests))
