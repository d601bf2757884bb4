"""Paths, texts and listings of the memory tool, without a store."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.store.schemas import MAX_KEY_CHARACTERS
from app.tools.errors import ToolError
from app.tools.files.paths import is_hidden, key_of, lineage, path_of
from app.tools.files.text import (
    MAX_LINES,
    check_length,
    format_size,
    insert_lines,
    lines_of,
    list_directory,
    replace_text,
    show_file,
)

PATH = "/memories/notes.txt"
HEADER = f"Here's the content of {PATH} with line numbers:"

NAMED = [
    ("/memories", ""),
    ("/memories/", ""),
    ("/memories/notes.txt", "notes.txt"),
    ("/memories/tasks/", "tasks"),
    ("/memories/tasks/a b.md", "tasks/a b.md"),
    ("/memories/.hidden/…", ".hidden/…"),
    ("/memories/100%", "100%"),
    ("/memories/" + "k" * MAX_KEY_CHARACTERS, "k" * MAX_KEY_CHARACTERS),
]

REFUSED = [
    "",
    "/",
    "memories/notes.txt",
    "/memoriesx",
    "/memories2/notes.txt",
    "/Memories/notes.txt",
    "/etc/passwd",
    "/memories//",
    "/memories//notes.txt",
    "/memories/tasks//",
    "/memories/..",
    "/memories/../etc/passwd",
    "/memories/tasks/../../etc/passwd",
    "/memories/.",
    "/memories/./notes.txt",
    "/memories/%2e%2e/etc/passwd",
    "/memories/%2E%2E%2Fetc",
    "/memories/tasks%2fnotes.txt",
    "/memories/a%00b",
    "/memories/..\\etc",
    "/memories/a\\b",
    "/memories/a\0b",
    "/memories/a\nb",
    "/memories/a\tb",
    "/memories/a\x1fb",
    "/memories/a\x7fb",
    "/memories/a\u2028b",
    "/memories/a\ud800b",
    "/memories/" + "k" * (MAX_KEY_CHARACTERS + 1),
]


@pytest.mark.parametrize(("path", "key"), NAMED)
def test_a_path_below_memories_names_a_key(path: str, key: str) -> None:
    assert key_of(path) == key


@pytest.mark.parametrize("path", REFUSED)
def test_every_other_path_is_refused(path: str) -> None:
    with pytest.raises(ToolError, match=r"^Error: The path "):
        key_of(path)


ANY_PART = st.text() | st.sampled_from(["..", ".", "", "%2e%2e", "\\", "a", "\0", "memories"])


@given(st.text() | st.lists(ANY_PART).map(lambda parts: "/memories/" + "/".join(parts)))
def test_a_path_is_refused_or_names_one_key_and_is_named_by_it(path: str) -> None:
    try:
        key = key_of(path)
    except ToolError:
        return
    assert path.removesuffix("/") == path_of(key)
    assert key_of(path_of(key)) == key
    assert len(key) <= MAX_KEY_CHARACTERS
    assert not {"", ".", ".."} & set(key.split("/")) or not key


def test_a_lineage_ends_with_the_key() -> None:
    assert lineage("a/b/c.md") == ["a", "a/b", "a/b/c.md"]
    assert lineage("a") == ["a"]


def test_hidden_is_what_begins_with_a_dot_or_is_no_path() -> None:
    hidden = [".x", "a/.x/b", "node_modules", "a/node_modules/b", "a//b", "", "/a", "a\tb", ".."]
    assert [key for key in hidden if not is_hidden(key)] == []
    assert not any(map(is_hidden, ["a", "a/b.c", "a.b/c", "my_node_modules"]))


def test_a_file_is_shown_with_numbers_six_wide_and_a_tab() -> None:
    assert show_file(PATH, "Hello World\nThis is line two\n", None) == (
        f"{HEADER}\n     1\tHello World\n     2\tThis is line two"
    )
    assert show_file(PATH, "", None) == HEADER
    assert show_file(PATH, "\n", None) == f"{HEADER}\n     1\t"
    assert show_file(PATH, "a\r\nb", None) == f"{HEADER}\n     1\ta\r\n     2\tb"


@pytest.mark.parametrize(
    ("view_range", "numbers"),
    [((1, 3), [1, 2, 3]), ((2, 2), [2]), ((8, -1), [8, 9, 10]), ((9, 99), [9, 10])],
)
def test_a_range_of_lines_keeps_their_numbers(
    view_range: tuple[int, int], numbers: list[int]
) -> None:
    text = "".join(f"line {number}\n" for number in range(1, 11))
    lines = [f"{number:6}\tline {number}" for number in numbers]
    assert show_file(PATH, text, view_range) == "\n".join([HEADER, *lines])


@pytest.mark.parametrize("view_range", [(0, 1), (3, 2), (11, 12), (11, -1), (-1, -1), (1, -2)])
def test_a_range_outside_the_file_is_refused(view_range: tuple[int, int]) -> None:
    with pytest.raises(ToolError, match=r"^Error: Invalid `view_range` parameter: \["):
        show_file(PATH, "line\n" * 10, view_range)


def test_a_file_has_at_most_999_999_lines() -> None:
    check_length(PATH, "\n" * MAX_LINES)
    for text in ("\n" * (MAX_LINES + 1), "\n" * MAX_LINES + "x"):
        with pytest.raises(ToolError) as caught:
            check_length(PATH, text)
        assert str(caught.value) == f"File {PATH} exceeds maximum line limit of 999,999 lines."


def test_a_replacement_shows_the_lines_around_it() -> None:
    text = "".join(f"line {number}\n" for number in range(1, 11))
    assert replace_text(PATH, text, "line 5\n", "five\nand a half\n") == (
        text.replace("line 5\n", "five\nand a half\n"),
        "The memory file has been edited. Here is the snippet showing the change (with line "
        "numbers):\n     3\tline 3\n     4\tline 4\n     5\tfive\n     6\tand a half\n"
        "     7\tline 6\n     8\tline 7\n     9\tline 8",
    )
    after, told = replace_text(PATH, "only", "only", "")
    assert (after, told.count("\n")) == ("", 0)


def test_what_is_replaced_must_be_there_exactly_once() -> None:
    with pytest.raises(ToolError) as caught:
        replace_text(PATH, "blue\n", "red", "green")
    assert str(caught.value) == (
        f"No replacement was performed, old_str `red` did not appear verbatim in {PATH}."
    )
    with pytest.raises(ToolError) as caught:
        replace_text(PATH, "a\nred red\nred\n", "red", "green")
    assert str(caught.value) == (
        "No replacement was performed. Multiple occurrences of old_str `red` in lines: 2, 2, 3. "
        "Please ensure it is unique"
    )
    with pytest.raises(ToolError, match=r"lines: (\d+, ){20}…\. Please"):
        replace_text(PATH, "x\n" * 5_000, "x", "y")
    with pytest.raises(ToolError, match="old_str is empty"):
        replace_text(PATH, "text", "", "more")


def test_a_replacement_is_taken_literally() -> None:
    assert replace_text(PATH, r"a\1.b", ".", r"\g<0>")[0] == r"a\1\g<0>b"


@pytest.mark.parametrize(
    ("text", "line", "addition", "after"),
    [
        ("", 0, "a", "a\n"),
        ("b\n", 0, "a\n", "a\nb\n"),
        ("a\n", 1, "b", "a\nb\n"),
        ("a", 1, "b", "a\nb\n"),
        ("a\nc\n", 1, "b1\nb2\n", "a\nb1\nb2\nc\n"),
        ("a\nb\n", 1, "x\n\n", "a\nx\n\nb\n"),
        ("a\n", 1, "", "a\n\n"),
    ],
)
def test_text_is_inserted_after_a_line(text: str, line: int, addition: str, after: str) -> None:
    assert insert_lines(text, line, addition) == after


@pytest.mark.parametrize("line", [-1, 3])
def test_a_line_to_insert_after_must_be_there(line: int) -> None:
    with pytest.raises(ToolError) as caught:
        insert_lines("a\nb\n", line, "c")
    assert str(caught.value) == (
        f"Error: Invalid `insert_line` parameter: {line}. "
        "It should be within the range of lines of the file: [0, 2]"
    )


LINES = st.lists(st.text(st.characters(exclude_characters="\n")), max_size=8)


@given(LINES, LINES.filter(bool), st.data())
def test_inserting_keeps_every_line(
    before: list[str], added: list[str], data: st.DataObject
) -> None:
    text = "".join(f"{line}\n" for line in before)
    place = data.draw(st.integers(0, len(before)))
    after = insert_lines(text, place, "".join(f"{line}\n" for line in added))
    assert lines_of(after) == before[:place] + added + before[place:]


@given(st.text(), st.text(min_size=1), st.text(), st.text())
def test_a_replacement_changes_one_place_and_nothing_else(
    head: str, old: str, tail: str, new: str
) -> None:
    text = head + old + tail
    try:
        after, _ = replace_text(PATH, text, old, new)
    except ToolError:
        assert text.count(old) > 1
    else:
        assert after == head + new + tail


def test_a_listing_is_two_levels_deep_and_sums_up_what_is_below() -> None:
    files = [
        (".hidden", 9),
        ("a/.git/x", 9),
        ("a/b/c/deep.md", 1_024),
        ("a/b/near.md", 512),
        ("a/x.md", 10),
        ("b.md", 0),
        ("node_modules/x", 9),
    ]
    assert list_directory("", files, is_cut=False) == "\n".join(
        [
            "Here're the files and directories up to 2 levels deep in /memories, "
            "excluding hidden items and node_modules:",
            "1.5K\t/memories",
            "1.5K\t/memories/a/",
            "1.5K\t/memories/a/b/",
            "10B\t/memories/a/x.md",
            "0B\t/memories/b.md",
        ]
    )


def test_a_listing_of_a_directory_is_counted_from_there() -> None:
    files = [(".work/b/c/d.md", 1), (".work/b/c.md", 1), (".work/e.md", 1)]
    assert list_directory(".work", files, is_cut=False).splitlines()[1:] == [
        "3B\t/memories/.work",
        "2B\t/memories/.work/b/",
        "1B\t/memories/.work/b/c/",
        "1B\t/memories/.work/b/c.md",
        "1B\t/memories/.work/e.md",
    ]


def test_a_listing_says_that_it_is_cut() -> None:
    last = list_directory("", [("a", 1)], is_cut=True).splitlines()[-1]
    assert last.startswith("(There are more: only the first 1,000 files")


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0B"),
        (1_023, "1023B"),
        (1_024, "1.0K"),
        (5_632, "5.5K"),
        (1_048_575, "1.0M"),
        (1_258_291, "1.2M"),
        (2**40, "1024.0G"),
    ],
)
def test_sizes_are_written_as_people_do(size: int, text: str) -> None:
    assert format_size(size) == text
