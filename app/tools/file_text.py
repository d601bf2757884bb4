"""Files as they are shown to a model: their paths, listings, and numbered lines; edits of texts."""

import re
from collections.abc import Iterable, Sequence

from app.store.schemas import MAX_KEY_CHARACTERS
from app.tools.budget import (
    MAX_RESULT_CHARACTERS,
    count_fitting,
    fair_limit,
    json_length,
    shorten,
)
from app.tools.tool import ToolError

ROOT = "/memories"

_ENCODED = re.compile("%[0-9A-Fa-f]{2}")
# Control characters, line and paragraph separators, unpaired surrogates.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

MAX_LINES = 999_999
"""Maximum lines of a file, set by Anthropic's documentation."""

DEPTH = 2
MAX_FILES = 1_000
"""Maximum files of a listing, in order of their names; about 10,000 tokens."""

_UNITS = "BKMG"

_NUMBER_WIDTH = 6
_SNIPPET_LINES = 2
"""Lines shown before and after a change."""

# A line with its newline: of Unix, of Windows, or of old Macs.
_LINE = re.compile("[^\r\n]*+(?:\r\n|[\r\n])|[^\r\n]++")

_SHOWN_OCCURRENCES = 20
"""Maximum line numbers in an error."""


def key_of(path: str) -> str:
    """Return the key of a path, "" for /memories itself; raises ToolError.

    One slash at the end is allowed, because listings write it after directories. Paths are never
    resolved or decoded: a path that would need it is refused.
    """
    if path.rstrip("/") == ROOT and len(path) <= len(ROOT) + 1:
        return ""
    if not path.startswith(f"{ROOT}/"):
        raise ToolError(
            f"Error: The path {path!a} does not start with {ROOT}. All files are there."
        )
    key = path[len(ROOT) + 1 :].removesuffix("/")
    if problem := problem_of(key):
        raise ToolError(f"Error: The path {path!a} {problem}.")
    return key


def problem_of(key: str) -> str | None:
    """Return the reason why a key cannot be a path below /memories, or None."""
    if found := _UNPRINTABLE.search(key):
        return f"contains the character U+{ord(found[0]):04X}; leave it out"
    if "\\" in key:
        return "contains a backslash; separate directories by /"
    if found := _ENCODED.search(key):
        return f"contains {found[0]}; paths are not percent-encoded, write the character itself"
    for part in key.split("/"):
        if part in ("", ".", ".."):
            return f'has the part "{part}"; give every directory and file a name'
    if len(key) > MAX_KEY_CHARACTERS:
        return f"is too long: use at most {MAX_KEY_CHARACTERS} characters below {ROOT}/"
    return None


def path_of(key: str) -> str:
    """Return the path of a key."""
    return f"{ROOT}/{key}" if key else ROOT


def lineage(key: str) -> list[str]:
    """Return the directories that contain a key, outermost first, and the key itself."""
    parts = key.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]


def is_hidden(key: str) -> bool:
    """Return whether listings omit a key: it is hidden, in node_modules, or not a path."""
    if problem_of(key):
        return True
    return any(part.startswith(".") or part == "node_modules" for part in key.split("/"))


def list_directory(directory: str, files: Iterable[tuple[str, int]], *, is_cut: bool) -> str:
    """Return the listing of a directory (its key) from the keys and bytes of its files."""
    start = f"{directory}/" if directory else ""
    sizes: dict[str, int] = {}
    total = 0
    for key, size in files:
        if is_hidden(key.removeprefix(start)):
            continue
        total += size
        for entry in _entries(key.removeprefix(start)):
            sizes[entry] = sizes.get(entry, 0) + size
    path = path_of(directory)
    lines = [
        f"Here're the files and directories up to {DEPTH} levels deep in {path}, "
        "excluding hidden items and node_modules:",
        f"{format_size(total)}\t{path}",
        *(f"{format_size(size)}\t{path}/{entry}" for entry, size in sizes.items()),
    ]
    kept = lines[: count_fitting(len(line) + 1 for line in lines)]
    if len(kept) < len(lines):
        return "\n".join([*kept, "(More was left out. View a directory in it to see its files.)"])
    if is_cut:
        lines.append(
            f"(There are more: only the first {MAX_FILES:,} files in order of their names were "
            "looked at. View a directory in it to see its files.)"
        )
    return "\n".join(lines)


def format_size(size: int) -> str:
    """Return a number of bytes for people to read, such as 1.5K."""
    amount, unit = float(size), 0
    while round(amount, 1) >= 1024 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1024, unit + 1
    return f"{size}B" if unit == 0 else f"{amount:.1f}{_UNITS[unit]}"


def lines_of(text: str) -> list[str]:
    """Return the lines; a newline at the end does not begin another one."""
    return _plain(text).removesuffix("\n").split("\n") if text else []


def show_file(path: str, text: str, view_range: Sequence[int] | None) -> str:
    """Return a file, or a range of its lines, with line numbers; -1 is the last line."""
    lines = lines_of(text)
    check_length(path, text)
    first, last = (1, len(lines)) if view_range is None else _range(view_range, len(lines))
    chosen = lines[first - 1 : last]
    kept = chosen[: count_fitting(json_length(line) + _NUMBER_WIDTH for line in chosen)]
    shown = [str(shorten(line, MAX_RESULT_CHARACTERS)) for line in kept]
    result = [f"Here's the content of {path} with line numbers:", *_numbered(shown, first)]
    if len(kept) < len(chosen):
        result.append(
            f"(More was left out: the file has {len(lines):,} lines. View it with view_range "
            f"[{first + len(kept)}, -1] to go on.)"
        )
    return "\n".join(result)


def check_length(path: str, text: str) -> None:
    """Raise ToolError if a file has too many lines."""
    newlines = text.count("\n") + text.count("\r")
    if newlines >= MAX_LINES and len(lines_of(text)) > MAX_LINES:
        raise ToolError(f"File {path} exceeds maximum line limit of {MAX_LINES:,} lines.")


def replace_text(path: str, text: str, old: str, new: str) -> tuple[str, str]:
    """Return the text with `old`, which must occur once, replaced; and the result for the model.

    Models are shown and write plain newlines; the file keeps those that it has.
    """
    if not old:
        raise ToolError("No replacement was performed, old_str is empty. Say what to replace.")
    plain, plain_old = _plain(text), _plain(old)
    places = _find_all(plain, plain_old)
    if not places:
        raise ToolError(
            f"No replacement was performed, old_str `{old}` did not appear verbatim in {path}."
        )
    if len(places) > 1:
        raise ToolError(
            f"No replacement was performed. Multiple occurrences of old_str `{old}` in lines: "
            f"{_line_numbers(plain, places)}. Please ensure it is unique"
        )
    lines = _LINE.findall(text)
    start, end = (_place_in(lines, plain, at) for at in (places[0], places[0] + len(plain_old)))
    first = plain.count("\n", 0, places[0]) + 1
    added = _with_newline(new, _newline_near(lines, first - 1))
    after = text[:start] + added + text[end:]
    last = first + _plain(added).count("\n")
    start_of_snippet = max(first - _SNIPPET_LINES, 1)
    around = lines_of(after)[start_of_snippet - 1 : last + _SNIPPET_LINES]
    each = fair_limit([json_length(line) for line in around], MAX_RESULT_CHARACTERS)
    snippet = _numbered([str(shorten(line, each)) for line in around], start_of_snippet)
    edited = "The memory file has been edited. Here is the snippet showing the change "
    return after, "\n".join([f"{edited}(with line numbers):", *snippet])


def insert_lines(text: str, line: int, addition: str) -> str:
    """Return the text with lines added after a line (0: at the beginning)."""
    lines = _LINE.findall(text)
    if not 0 <= line <= len(lines):
        raise ToolError(
            f"Error: Invalid `insert_line` parameter: {line}. "
            f"It should be within the range of lines of the file: [0, {len(lines)}]"
        )
    newline = _newline_near(lines, line - 1) or _newline_near(_LINE.findall(addition), 0) or "\n"
    before = "".join(lines[:line])
    if before and not before.endswith(("\r", "\n")):
        before += newline
    added = _with_newline(_plain(addition).removesuffix("\n") + "\n", newline)
    return before + added + "".join(lines[line:])


def _plain(text: str) -> str:
    """Return a text with plain newlines alone."""
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _with_newline(text: str, newline: str | None) -> str:
    """Return a text with all its newlines in one form; None: as they are."""
    return text if newline is None else _plain(text).replace("\n", newline)


def _newline_near(lines: Sequence[str], index: int) -> str | None:
    """Return the newline of a line, or of the nearest before it, or after it; None if none has."""
    index = max(index, 0)
    for line in (*reversed(lines[: index + 1]), *lines[index + 1 :]):
        if newline := line[len(line.rstrip("\r\n")) :]:
            return newline
    return None


def _find_all(text: str, part: str) -> list[int]:
    """Return the places of a part that do not overlap."""
    places = []
    at = text.find(part)
    while at != -1:
        places.append(at)
        at = text.find(part, at + len(part))
    return places


def _place_in(lines: Sequence[str], plain: str, at: int) -> int:
    """Return the place in a text, given its lines, that `at` is in the text with plain newlines."""
    number = plain.count("\n", 0, at)
    column = at - (plain.rfind("\n", 0, at) + 1)
    return sum(map(len, lines[:number])) + column


def _entries(name: str) -> list[str]:
    """Return the entries of a listing that include a file: its directories and itself."""
    parts = name.split("/")
    directories = ["/".join(parts[:depth]) + "/" for depth in range(1, min(len(parts), DEPTH + 1))]
    return directories if len(parts) > DEPTH else [*directories, name]


def _range(view_range: Sequence[int], length: int) -> tuple[int, int]:
    first, last = view_range
    last = length if last == -1 else last
    if not (1 <= first <= last and first <= max(length, 1)):
        raise ToolError(
            f"Error: Invalid `view_range` parameter: {list(view_range)}. Give the first and the "
            f"last line, -1 for the end; the file has {length} lines."
        )
    return first, last


def _numbered(lines: Sequence[str], first: int) -> list[str]:
    """Return lines with their numbers."""
    return [f"{number:>{_NUMBER_WIDTH}}\t{line}" for number, line in enumerate(lines, first)]


def _line_numbers(text: str, places: Sequence[int]) -> str:
    numbers = [str(text.count("\n", 0, at) + 1) for at in places[:_SHOWN_OCCURRENCES]]
    return ", ".join(numbers) + (", …" if len(places) > _SHOWN_OCCURRENCES else "")
