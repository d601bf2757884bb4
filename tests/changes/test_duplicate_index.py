import time

from hypothesis import given
from hypothesis import strategies as st

from app.changes.duplicates import (
    MAX_COMPARED,
    Candidate,
    DuplicateIndex,
    is_duplicate,
    is_near_duplicate,
    loose_wording,
)
from app.changes.reconcile import reconcile
from app.conversations.memories import Memory
from app.namespaces import to_stored
from tests.support.scripted_model import insert_edit

WORDS = "a A The the an hepatitis few won't can not tea Tea , and . 5% C# ß É 10² don't cannot !"
words = st.sampled_from([*WORDS.split(), "  "])
texts = st.lists(words, max_size=6).map(" ".join)
contents = st.one_of(
    texts.map(lambda text: {"content": text}),
    st.tuples(texts, texts).map(lambda pair: {"a": pair[0], "b": [pair[1]]}),
)


@given(contents, contents)
def test_near_duplicates_have_one_loose_wording(a: dict[str, object], b: dict[str, object]) -> None:
    if is_near_duplicate(Candidate("m", a), Candidate("m", b)):
        assert loose_wording(a) == loose_wording(b)


@given(st.lists(st.tuples(st.sampled_from(["memory", "Memory", "note", None]), contents)), contents)
def test_a_duplicate_is_found_exactly_if_there_is_one(
    known: list[tuple[str | None, dict[str, object]]], content: dict[str, object]
) -> None:
    memories = [Memory(f"m{n}", kind, said) for n, (kind, said) in enumerate(known)]
    found = DuplicateIndex(memories).find_duplicate("memory", content)
    expected = {memory.id for memory in memories if is_duplicate("memory", content, memory)}
    assert found in expected if expected else found is None


def test_an_updated_memory_is_found_by_its_new_text() -> None:
    known = DuplicateIndex([Memory("m1", "memory", {"content": "Ann likes tea."})])
    known.put(Memory("m1", "memory", {"content": "Ann likes ramen."}))
    assert known.find_duplicate("memory", {"content": "Ann likes tea"}) is None
    assert known.find_duplicate("memory", {"content": "ann likes ramen"}) == "m1"


def test_thousands_of_inserts_are_compared_quickly() -> None:
    def content(number: int) -> dict[str, str]:
        return {"content": f"Fact {number} of many. " * 5}

    existing = [Memory(f"m{n}", "memory", content(n)) for n in range(500)]
    inserts = [insert_edit(f"m{500 + n}", "memory", content(n)) for n in range(250, 1_250)]
    started = time.process_time()
    reconciled = reconcile(inserts, existing, namespace=to_stored(["x"]))
    assert time.process_time() - started < 2
    assert (len(reconciled.inserts), reconciled.unchanged) == (750, 250)


def test_comparisons_of_memories_with_the_same_words_are_bounded() -> None:
    said = [
        f"The tea{' the' if n % 2 else ' a'} cup {'a' if n % 3 else 'the'} x" for n in range(90)
    ]
    known = DuplicateIndex(Memory(f"m{n}", "m", {"c": text}) for n, text in enumerate(said))
    assert len(said) > MAX_COMPARED
    assert known.find_duplicate("m", {"c": said[0]}) == "m0"
