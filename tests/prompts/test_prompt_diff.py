import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.prompts.texts import unified_diff

_HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@\n")
_NO_NEWLINE = "\\ No newline at end of file\n"


def lines_of(text: str) -> list[str]:
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def diff(old: str, new: str) -> str:
    return unified_diff(old, new, "old", "new")


def applied(old: str, patch: str) -> str:
    """Apply a diff to a text; asserts that the diff is about this text."""
    before, after, read = lines_of(old), [], 0
    marked = lines_of(patch)
    assert marked[:2] == ["--- old\n", "+++ new\n"]
    for number, line in enumerate(marked[2:], 2):
        if line == _NO_NEWLINE:
            continue
        if hunk := _HUNK.fullmatch(line):
            begin, size = int(hunk[1]), int(hunk[2] or 1)
            after += before[read : begin - (size > 0)]
            read = begin - (size > 0)
            continue
        text = line[1:]
        if marked[number + 1 : number + 2] == [_NO_NEWLINE]:
            text = text.removesuffix("\n")
        if line[0] in " -":
            assert before[read] == text
            read += 1
        if line[0] in " +":
            after.append(text)
    return "".join(after + before[read:])


def numbered(end: int) -> str:
    return "".join(f"{number}\n" for number in range(1, end + 1))


@pytest.mark.parametrize(
    ("old", "new", "hunks"),
    [
        (
            numbered(20),
            numbered(20).replace("2\n", "two\n", 1).replace("19\n", ""),
            "@@ -1,5 +1,5 @@\n 1\n-2\n+two\n 3\n 4\n 5\n"
            "@@ -16,5 +16,4 @@\n 16\n 17\n 18\n-19\n 20\n",
        ),
        ("a", "a\n", f"@@ -1 +1 @@\n-a\n{_NO_NEWLINE}+a\n"),
        ("a\nb", "a\nc", f"@@ -1,2 +1,2 @@\n a\n-b\n{_NO_NEWLINE}+c\n{_NO_NEWLINE}"),
        (
            "a\u2028b\x0bc\rd\n",
            "a\u2028b\x0bc\re\n",
            "@@ -1 +1 @@\n-a\u2028b\x0bc\rd\n+a\u2028b\x0bc\re\n",
        ),
    ],
    ids=["apart", "newline added", "no newlines", "only newlines end lines"],
)
def test_a_diff_is_as_git_would_write_it(old: str, new: str, hunks: str) -> None:
    assert diff(old, new) == f"--- old\n+++ new\n{hunks}"


texts = st.lists(
    st.sampled_from(["a\n", "b\n", "c\n", "\n", " \r\n", "-a\n", "\\ b\n", "d\u2028\n", "e"]),
    max_size=30,
).map("".join)


@given(old=texts, new=texts)
@example(old="", new="a")
@example(old="a\n", new="")
@example(old="a\n" * 20, new="a\n" * 19)
def test_a_diff_turns_the_old_text_into_the_new_one(old: str, new: str) -> None:
    patch = diff(old, new)
    assert (patch == "") is (old == new)
    assert old == new or applied(old, patch) == new


@pytest.mark.parametrize("apart", [900, 1_100])
def test_between_distant_changes_all_lines_count_as_changed(apart: int) -> None:
    old = f"x\n{numbered(apart)}x\n"
    patch = diff(old, old.replace("x\n", "y\n"))
    assert applied(old, patch) == old.replace("x\n", "y\n")
    assert patch.count("\n-") == (2 if apart == 900 else apart + 2)


def test_the_longest_texts_are_compared_quickly() -> None:
    numbers = numbered(34_000)
    backwards = "".join(f"{number}\n" for number in range(34_000, 0, -1))
    near = numbers.replace("\n17000\n", "\nseventeen thousand\n")
    began = time.monotonic()
    patch = diff(numbers, backwards)
    small = diff(numbers, near)
    seconds = time.monotonic() - began
    assert applied(numbers, patch) == backwards
    assert small.endswith("-17000\n+seventeen thousand\n 17001\n 17002\n 17003\n")
    assert len(small) < 150
    assert seconds < 2, "compared line by line it would take minutes"
