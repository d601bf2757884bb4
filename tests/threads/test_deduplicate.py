from hypothesis import given
from hypothesis import strategies as st

from app.threads.deduplicate import (
    MessageObject,
    canonical_text,
    count_repeated,
    deduplicate,
)
from tests.support.threads import says


def talk(text: str) -> list[MessageObject]:
    return [says(letter) for letter in text]


def known(thread: list[MessageObject], sent: list[MessageObject]) -> int:
    return count_repeated(thread[: len(sent)], thread[-len(sent) :] if sent else [], sent)


def test_a_conversation_that_goes_on_repeats_all_that_is_there() -> None:
    assert known(talk("abcd"), talk("abcdef")) == 4


def test_a_request_overtaken_by_a_later_one_brings_nothing_new() -> None:
    assert known(talk("abcd"), talk("ab")) == 2


def test_a_window_goes_on_where_the_thread_ends() -> None:
    assert known(talk("abcd"), talk("cdef")) == 2


def test_other_messages_repeat_nothing() -> None:
    assert known(talk("abcd"), talk("xy")) == 0
    assert known(talk("abcd"), talk("bc")) == 0
    assert known([], talk("ab")) == 0


def test_an_id_says_more_than_words() -> None:
    assert known([says("yes", "1")], [says("yes", "2")]) == 0
    assert known([says("yes", "1")], [says("Yes.", "1")]) == 1
    assert known([says("yes", "1")], [says("yes")]) == 1
    assert known([says("yes", "position:0")], [says("yes", "7")]) == 1


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


def test_an_id_sent_twice_in_one_request_is_one_message() -> None:
    found = deduplicate([says("a", "1"), says("b", "1"), says("c", "2")], {})
    assert [message["content"] for message in found.new] == ["a", "c"]
    assert (found.already_known, found.conflicting) == (1, ["1"])


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
