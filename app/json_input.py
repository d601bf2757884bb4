"""JSON from clients and models, parsed within a budget of values and nesting."""

import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from pydantic_core import from_json

MAX_NESTING = 200
"""The limit of pydantic's parser."""

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
