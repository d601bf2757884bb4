"""Paths, texts, and listings of the memory tool, without a store."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.store.schemas import MAX_KEY_CHARACTERS
from app.tools.file_text import (
    MAX_LINES,
    check_length,
    format_size,
    insert_lines,
    key_of,
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


def test_a_range_outside_the_file_is_refused() -> None:
    for view_range in ((0, 1), (3, 2), (11, 12), (11, -1), (-1, -1), (1, -2)):
        with pytest.raises(ToolError, match=r"^Error: Invalid `view_range` parameter: \["):
            show_file(PATH, TEN_LINES, view_range)


def test_a_file_has_at_most_999_999_lines() -> None:
    check_length(PATH, "\n" * MAX_LINES)
    for text in ("\n" * (MAX_LINES + 1), "\n" * MAX_LINES + "x"):
        with pytest.raises(ToolError, match=f"^File {PATH} exceeds maximum line limit of 999,999"):
            check_length(PATH, text)


def test_files_of_windows_keep_their_newlines() -> None:
    text = "one\r\ntwo\r\nthree\r\n"
    assert replace_text(PATH, text, "one\ntwo", "1\n2")[0] == "1\r\n2\r\nthree\r\n"
    assert replace_text(PATH, text, "two\r\n", "")[0] == "one\r\nthree\r\n"
    assert replace_text(PATH, text, "two", "2\n2")[0] == "one\r\n2\r\n2\r\nthree\r\n"
    assert insert_lines(text, 1, "a\nb") == "one\r\na\r\nb\r\ntwo\r\nthree\r\n"


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
