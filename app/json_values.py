"""JSON values: parsing within a budget, and the check that PostgreSQL can store them."""

import gc
import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NewType, TypeAlias

import numpy as np
from pydantic_core import from_json

JsonObject: TypeAlias = dict[str, Any]
"""A JSON object whose members are not known here, such as a client's value."""

JsonText = NewType("JsonText", str)
"""The text of a JSON value that PostgreSQL can store."""

MAX_NESTING = 200
"""The limit of pydantic's parser."""

MAX_DEPTH = 64
"""Maximum nesting of objects and arrays in a stored value."""

MAX_DIGITS = 1_000
"""Maximum digits of an integer: far below the limits of jsonb and of Python's output."""

MAX_SHOWN_KEY = 60
"""Maximum characters of one key in the path of a problem."""

UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
"""PostgreSQL's text and jsonb hold neither; JSON and Python strings do."""

_SHORTEST_VALUE = 2
"""Minimum bytes of a further value: `1,`."""

_NO_BACKSLASH = re.compile(rb"[^\\]")
_QUOTE, _BACKSLASH = ord('"'), ord("\\")
_BEFORE_VALUES = np.zeros(256, dtype=bool)
_BEFORE_VALUES[list(b",[{")] = True
"""Each value but the first follows one of these; keys of objects do not count."""


class TooManyValuesError(ValueError):
    """JSON text holds more values than allowed."""


class TooDeepError(ValueError):
    """JSON text is nested deeper than the parser goes."""


class UnstorableError(ValueError):
    """Part of a value cannot be stored; `place` is its path, `problem` says what to change."""

    def __init__(self, place: str, problem: str) -> None:
        super().__init__(f"{place} {problem}")
        self.place = place
        self.problem = problem


def to_json_text(value: Any) -> JsonText:
    """Return the compact text of a value that `check_storable` has passed."""
    return JsonText(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def parse_json(text: bytes) -> Any:
    """Return the value of JSON text that `check_values` has passed; raises ValueError.

    Integers stay exact, and of equal keys the last one wins.
    """
    with _without_collector():
        try:
            return from_json(text, allow_inf_nan=False)
        except ValueError as error:
            if "recursion limit" in str(error):
                raise TooDeepError(f"is nested deeper than {MAX_NESTING} levels") from error
            raise


def check_values(text: bytes, max_values: int) -> None:
    """Raise TooManyValuesError if JSON text holds more values.

    They are counted before parsing, because Python objects take up to twenty times the size.
    """
    if len(text) <= _SHORTEST_VALUE * max_values:
        return
    at_most = 1 + sum(text.count(byte) for byte in (b",", b"[", b"{"))
    if at_most > max_values and count_values(text, most=max_values) > max_values:
        raise TooManyValuesError(f"has more than {max_values:,} JSON values")


def count_values(text: bytes, *, most: int, chunk_bytes: int = 1 << 18) -> int:
    """Return an upper bound of the values, ignoring commas and brackets in strings.

    Stops counting beyond `most`. Works in chunks, because each takes six times its size.
    """
    characters = np.frombuffer(text, np.uint8)
    count, in_string, start = 1, 0, 0
    while start < len(text) and count <= most:
        end = start + chunk_bytes
        if text[end - 1 : end] == b"\\":  # keep an escaped character in the same chunk
            found = _NO_BACKSLASH.search(text, end)
            end = found.end() if found else len(text)
        chunk = characters[start:end]
        quotes = chunk == _QUOTE
        quotes[_escaped(chunk)] = False
        outside = (np.cumsum(quotes, dtype=np.uint8) + np.uint8(in_string)) & 1 == 0
        count += int(np.count_nonzero(_BEFORE_VALUES[chunk] & outside))
        in_string ^= int(np.count_nonzero(quotes)) & 1
        start = end
    return count


def _escaped(characters: "np.ndarray[Any, np.dtype[np.uint8]]") -> Any:
    """Return the positions after odd runs of backslashes."""
    places = np.flatnonzero(characters == _BACKSLASH)
    if not places.size:
        return places
    last = np.flatnonzero(np.diff(places, append=places[-1] + 2) != 1)
    first = np.concatenate(([0], last[:-1] + 1))
    after = places[last[(last - first) % 2 == 0]] + 1
    return after[after < characters.size]


@contextmanager
def _without_collector() -> Iterator[None]:
    """Keep the garbage collector from scanning a growing value again and again.

    Parsed JSON has no cycles, and collection took two thirds of the parsing time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def check_storable(value: Any, place: str, *, max_depth: int = MAX_DEPTH) -> int:
    """Return the number of JSON values in a value that PostgreSQL's jsonb can hold.

    Raises UnstorableError with the path of the part that it cannot; paths begin with `place`.
    """
    count = count_storable(value, max_depth=max_depth)
    return _find_problem(value, place, max_depth) if count is None else count


def count_storable(value: Any, *, max_depth: int = MAX_DEPTH) -> int | None:
    """Return the number of JSON values in a value; None if some part may not be storable.

    Goes level by level, several times as fast as a walk that keeps track of its path.
    """
    count, level = 0, [value]
    for depth in range(max_depth + 1):
        count += len(level)
        texts: list[str] = []
        inner: list[Any] = []
        for node in level:
            kind = type(node)
            if kind is str:
                texts.append(node)
            elif depth == max_depth and kind in _CONTAINERS:
                return None
            elif kind is dict:
                texts.extend(node)
                inner.extend(node.values())
            elif kind is list:
                inner.extend(node)
            elif not (node is None or kind is bool or _is_storable_number(node)):
                return None
        if not is_storable_text("".join(texts)):
            return None
        if not inner:
            return count
        level = inner
    return None


def is_deeper(value: Any, depth: int) -> bool:
    """Return whether lists and objects are nested more than `depth` levels deep."""
    level = [value]
    for _ in range(depth):
        level = [
            inner
            for node in level
            if isinstance(node, dict | list)
            for inner in (node.values() if isinstance(node, dict) else node)
        ]
        if not level:
            return False
    return any(isinstance(node, dict | list) for node in level)


def is_storable_text(text: str) -> bool:
    """Return whether PostgreSQL can hold a text; ten times as fast as searching UNSTORABLE."""
    if "\0" in text:
        return False
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_storable_text(text: str) -> str:
    """Return the text; ValueError if PostgreSQL cannot hold it."""
    if problem := _text_problem(text):
        raise ValueError(problem)
    return text


def replace_unstorable(text: str, replacement: str = "\ufffd") -> str:
    """Return the text with each character that PostgreSQL cannot hold replaced."""
    return UNSTORABLE.sub(replacement, text)


_CONTAINERS = (dict, list)
_FIRST_TOO_LONG: int = 10**MAX_DIGITS


def _is_storable_number(node: Any) -> bool:
    if type(node) is float:
        return math.isfinite(node)
    return type(node) is int and -_FIRST_TOO_LONG < node < _FIRST_TOO_LONG


_Path: TypeAlias = "tuple[_Path, str] | None"


def _find_problem(value: Any, place: str, max_depth: int) -> int:
    """Raise UnstorableError for the part that cannot be stored; return the number of values."""
    pending: list[tuple[Any, _Path, int]] = [(value, None, 1)]
    count = 0
    while pending:
        node, path, depth = pending.pop()
        count += 1
        is_container = isinstance(node, dict | list)
        if depth > max_depth and is_container:
            problem: str | None = (
                f"is nested deeper than {max_depth} levels of objects and arrays; flatten it"
            )
        else:
            problem = _problem(node)
        if problem:
            raise UnstorableError(place + _joined(path), problem)
        if isinstance(node, dict):
            pending.extend(
                (child, (path, f".{_cut(key)}"), depth + 1) for key, child in node.items()
            )
        elif isinstance(node, list):
            pending.extend((child, (path, f"[{i}]"), depth + 1) for i, child in enumerate(node))
    return count


def _joined(path: _Path) -> str:
    parts = []
    while path is not None:
        path, part = path
        parts.append(part)
    return "".join(reversed(parts))


def _cut(key: str) -> str:
    return key if len(key) <= MAX_SHOWN_KEY else key[:MAX_SHOWN_KEY] + "…"


def _problem(node: Any) -> str | None:
    if isinstance(node, dict) and not is_storable_text("".join(node)):
        return "has a key with a NUL or an unpaired surrogate; leave it out"
    if isinstance(node, str):
        return _text_problem(node)
    if isinstance(node, float) and not math.isfinite(node):
        return f"is {node}, which JSON does not have; use null or a string"
    if isinstance(node, int) and not -_FIRST_TOO_LONG < node < _FIRST_TOO_LONG:
        return f"is an integer of more than {MAX_DIGITS:,} digits; send it as a string"
    return None


def _text_problem(text: str) -> str | None:
    if is_storable_text(text) or (found := UNSTORABLE.search(text)) is None:
        return None
    return f"contains U+{ord(found[0]):04X}, which cannot be stored; leave it out"
