"""Paths, texts, and listings of the memory tool, without a store."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.store.schemas import MAX_KEY_CHARACTERS
from app.tools.budget import MAX_RESULT_CHARACTERS
from app.tools.file_text import (
    MAX_LINES,
    check_length,
    format_size,
    insert_lines,
    key_of,
    lines_of,
    list_directory,
    path_of,
    replace_text,
    show_file,
)
from app.tools.tool import ToolError

PATH = "/memories/notes.txt"
HEADER = f"Here's the content of {PATH} with line numbers:"
TEN_LINES = "".join(f"line {number}\n" for number in range(1, 11))


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("/memories", ""),
        ("/memories/", ""),
        ("/memories/tasks/", "tasks"),
        ("/memories/tasks/a b.md", "tasks/a b.md"),
        ("/memories/.hidden/…", ".hidden/…"),
        ("/memories/100%", "100%"),
        ("/memories/" + "k" * MAX_KEY_CHARACTERS, "k" * MAX_KEY_CHARACTERS),
    ],
)
def test_a_path_below_memories_names_a_key(path: str, key: str) -> None:
    assert key_of(path) == key


ELSEWHERE = ["", "memories/a.txt", "/memories2/a.txt", "/Memories/a.txt", "/etc/passwd"]
NO_KEYS = ["/", "a//", "../a", "a/../../b", "./a", "%2e%2e/a", "a%00b", "..\\a"]
NO_KEYS += ["k" * (MAX_KEY_CHARACTERS + 1), *(f"a{c}b" for c in "\0\n\x1f\x7f\u2028\ud800")]


def test_every_other_path_is_refused() -> None:
    for path in (*ELSEWHERE, *(f"/memories/{key}" for key in NO_KEYS)):
        with pytest.raises(ToolError, match=r"^Error: The path "):
            key_of(path)


ANY_PART = st.text() | st.sampled_from(["..", ".", "", "%2e%2e", "\\", "a", "\0", "memories"])


@given(st.text() | st.lists(ANY_PART).map(lambda parts: "/memories/" + "/".join(parts)))
def test_a_path_is_refused_or_names_exactly_one_key(path: str) -> None:
    try:
        key = key_of(path)
    except ToolError:
        return
    assert path.removesuffix("/") == path_of(key)
    assert key_of(path_of(key)) == key
    assert len(key) <= MAX_KEY_CHARACTERS
    assert not {"", ".", ".."} & set(key.split("/")) or not key


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("Hello World\nThis is line two\n", "\n     1\tHello World\n     2\tThis is line two"),
        ("", ""),
        ("\n", "\n     1\t"),
        ("a\r\nb", "\n     1\ta\n     2\tb"),
    ],
)
def test_lines_are_numbered_in_six_columns_and_a_tab(text: str, lines: str) -> None:
    assert show_file(PATH, text, None) == HEADER + lines


@pytest.mark.parametrize(
    ("view_range", "numbers"),
    [((1, 3), [1, 2, 3]), ((2, 2), [2]), ((8, -1), [8, 9, 10]), ((9, 99), [9, 10])],
)
def test_a_range_of_lines_keeps_their_numbers(
    view_range: tuple[int, int], numbers: list[int]
) -> None:
    lines = [f"{number:6}\tline {number}" for number in numbers]
    assert show_file(PATH, TEN_LINES, view_range) == "\n".join([HEADER, *lines])


def test_a_long_file_is_shown_in_parts() -> None:
    text = "".join(f"{number}: {'x' * 900}\n" for number in range(1, 101))
    seen = []
    following = 1
    while following:
        _, *lines = show_file(PATH, text, (following, -1)).split("\n")
        note = lines.pop() if lines[-1].startswith("(") else ""
        assert sum(map(len, lines)) <= MAX_RESULT_CHARACTERS
        seen += [int(line.split()[0]) for line in lines]
        following = int(note.partition("[")[2].partition(",")[0]) if note else 0
    assert seen == list(range(1, 101))
    long = "y" * (2 * MAX_RESULT_CHARACTERS)
    shown = show_file(PATH, f"{long}\nz\n", None)
    assert len(shown) < MAX_RESULT_CHARACTERS + 300
    assert "characters left out)" in shown
    _, result = replace_text(PATH, f"{long}\nz\n", "z", "a")
    assert len(result) < MAX_RESULT_CHARACTERS + 300
    files = [(f"{number:04}{'k' * 500}", 1) for number in range(500)]
    listing = list_directory("", files, is_cut=False)
    assert len(listing) < MAX_RESULT_CHARACTERS + 300
    assert listing.endswith("(More was left out. View a directory in it to see its files.)")


def test_a_range_outside_the_file_is_refused() -> None:
    for view_range in ((0, 1), (3, 2), (11, 12), (11, -1), (-1, -1), (1, -2)):
        with pytest.raises(ToolError, match=r"^Error: Invalid `view_range` parameter: \["):
            show_file(PATH, TEN_LINES, view_range)


def test_a_file_has_at_most_999_999_lines() -> None:
    check_length(PATH, "\n" * MAX_LINES)
    for text in ("\n" * (MAX_LINES + 1), "\n" * MAX_LINES + "x"):
        with pytest.raises(ToolError, match=f"^File {PATH} exceeds maximum line limit of 999,999"):
            check_length(PATH, text)


NEWLINES = ("\n", "\r\n", "\r")


@pytest.mark.parametrize("newline", NEWLINES)
def test_a_file_keeps_its_newlines(newline: str) -> None:
    def with_newline(text: str) -> str:
        return text.replace("\n", newline)

    text = with_newline("one\ntwo\nthree\n")
    for old, new, after in (
        ("one\ntwo", "1\n2", "1\n2\nthree\n"),
        ("two\r\n", "", "one\nthree\n"),
        ("two", "2\r\n2", "one\n2\n2\nthree\n"),
        ("\nthree\n", "\n", "one\ntwo\n"),
    ):
        assert replace_text(PATH, text, old, new)[0] == with_newline(after)
    for line, added, after in (
        (0, "a\r\nb", "a\nb\none\ntwo\nthree\n"),
        (1, "a\nb\n", "one\na\nb\ntwo\nthree\n"),
        (3, "a", "one\ntwo\nthree\na\n"),
    ):
        assert insert_lines(text, line, added) == with_newline(after)
    unfinished = text.removesuffix(newline)
    assert insert_lines(unfinished, 3, "a\n") == with_newline("one\ntwo\nthree\na\n")
    assert insert_lines(unfinished, 1, "a") == with_newline("one\na\ntwo\nthree")
    assert show_file(PATH, text, (2, -1)).splitlines()[1:] == ["     2\ttwo", "     3\tthree"]
    with pytest.raises(ToolError, match="in lines: 1, 3"):
        replace_text(PATH, with_newline("x\ny\nx"), "x", "z")


def test_a_file_with_different_newlines_gets_those_of_the_place() -> None:
    text = "one\r\ntwo\nthree\rfour"
    assert replace_text(PATH, text, "one", "1\n1")[0] == "1\r\n1\r\ntwo\nthree\rfour"
    assert replace_text(PATH, text, "two\nthree", "2")[0] == "one\r\n2\rfour"
    assert insert_lines(text, 2, "x\ry") == "one\r\ntwo\nx\ny\nthree\rfour"
    assert insert_lines(text, 4, "five") == "one\r\ntwo\nthree\rfour\rfive\r"


def test_a_text_without_newlines_takes_those_that_are_added() -> None:
    assert insert_lines("", 0, "a\r\nb") == "a\r\nb\r\n"
    assert insert_lines("", 0, "") == "\n"
    assert replace_text(PATH, "one", "one", "1\r\n2")[0] == "1\r\n2"
    assert show_file(PATH, "\r", None) == f"{HEADER}\n     1\t"


ENDINGS = st.sampled_from(NEWLINES)
LINES = st.lists(st.tuples(st.text(alphabet="ab", max_size=2), ENDINGS), max_size=5)


@given(LINES, LINES, st.integers(0, 5))
def test_an_insertion_changes_no_other_line(
    lines: list[tuple[str, str]], added: list[tuple[str, str]], line: int
) -> None:
    text, addition = ("".join(map("".join, some)) for some in (lines, added))
    at = min(line, len(lines_of(text)))
    after = insert_lines(text, at, addition)
    expected = [*lines_of(text)[:at], *(lines_of(addition) or [""]), *lines_of(text)[at:]]
    assert lines_of(after) == expected


def test_a_replacement_shows_the_lines_around_it() -> None:
    _, message = replace_text(PATH, TEN_LINES, "line 5\n", "five\nand a half\n")
    numbers = [int(line.split()[0]) for line in message.splitlines()[1:]]
    assert numbers == [3, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize(
    ("text", "old", "error"),
    [
        ("blue\n", "red", rf"old_str `red` did not appear verbatim in {PATH}\."),
        ("a\nred red\nred\n", "red", "Multiple occurrences of old_str `red` in lines: 2, 2, 3. Pl"),
        ("x\n" * 5_000, "x", r"lines: (\d+, ){20}…\. Please ensure it is unique"),
        ("text", "", "old_str is empty"),
    ],
)
def test_a_replaced_text_must_occur_exactly_once(text: str, old: str, error: str) -> None:
    with pytest.raises(ToolError, match=error):
        replace_text(PATH, text, old, "green")


def test_a_listing_is_two_levels_deep_and_sums_up_deeper_files() -> None:
    files = [
        (".hidden", 9),
        ("a/.git/x", 9),
        ("a/b/c/deep.md", 1_024),
        ("a/b/near.md", 512),
        ("a/x.md", 10),
        ("b.md", 0),
        ("node_modules/x", 9),
    ]
    assert list_directory("", files, is_cut=False) == (
        "Here're the files and directories up to 2 levels deep in /memories, "
        "excluding hidden items and node_modules:\n"
        "1.5K\t/memories\n1.5K\t/memories/a/\n1.5K\t/memories/a/b/\n"
        "10B\t/memories/a/x.md\n0B\t/memories/b.md"
    )


def test_a_listing_of_a_hidden_directory_is_counted_from_there() -> None:
    files = [(".work/b/c/d.md", 1), (".work/b/c.md", 1), (".work/e.md", 1)]
    listed = list_directory(".work", files, is_cut=False).splitlines()[1:]
    assert [line.partition("/.work")[2] for line in listed] == [
        "",
        "/b/",
        "/b/c/",
        "/b/c.md",
        "/e.md",
    ]


def test_sizes_are_rounded_for_people() -> None:
    sizes = {0: "0B", 1_023: "1023B", 1_024: "1.0K", 5_632: "5.5K", 1_048_575: "1.0M"}
    sizes |= {1_258_291: "1.2M", 2**40: "1024.0G"}
    assert {size: format_size(size) for size in sizes} == sizes
