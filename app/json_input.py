"""JSON from clients and models, parsed within a budget of values and nesting."""

import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from pydantic_core import from_json

MAX_NESTING = 200
"""Of pydantic's parser, which stops there."""

_SHORTEST_VALUE = 2
"""Bytes that one more value takes at least: `1,`."""

_NO_BACKSLASH = re.compile(rb"[^\\]")
_QUOTE, _BACKSLASH = ord('"'), ord("\\")
_BEFORE_VALUES = np.zeros(256, dtype=bool)
_BEFORE_VALUES[list(b",[{")] = True
"""Each value but the first follows one of these; a key of an object is no value."""


class TooManyValuesError(ValueError):
    """JSON text holds more values than its reader takes."""


class TooDeepError(ValueError):
    """JSON text is nested deeper than the parser goes."""


def parse_json(text: bytes) -> Any:
    """Return the value of JSON text whose values were counted; raises ValueError.

    Integers stay exact, and of equal keys the last one counts.
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

    They are counted before Python objects are made of them: `[[],[],…` takes twenty times its size.
    """
    if len(text) <= _SHORTEST_VALUE * max_values:
        return
    at_most = 1 + sum(text.count(byte) for byte in (b",", b"[", b"{"))
    if at_most > max_values and count_values(text, most=max_values) > max_values:
        raise TooManyValuesError(f"has more than {max_values:,} JSON values")


def count_values(text: bytes, *, most: int, chunk_bytes: int = 1 << 18) -> int:
    """Return an upper bound of the values that ignores commas and brackets in strings.

    Stops counting beyond `most`. Goes by chunks: each takes six times its size for a moment.
    """
    characters = np.frombuffer(text, np.uint8)
    count, in_string, start = 1, 0, 0
    while start < len(text) and count <= most:
        end = start + chunk_bytes
        if text[end - 1 : end] == b"\\":  # what it escapes belongs to the same chunk
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
    """Return the places after a run of backslashes of odd length."""
    places = np.flatnonzero(characters == _BACKSLASH)
    if not places.size:
        return places
    last = np.flatnonzero(np.diff(places, append=places[-1] + 2) != 1)
    first = np.concatenate(([0], last[:-1] + 1))
    after = places[last[(last - first) % 2 == 0]] + 1
    return after[after < characters.size]


@contextmanager
def _without_collector() -> Iterator[None]:
    """Keep the garbage collector from going over a growing value again and again.

    Parsed JSON has no cycles; collecting took two thirds of the time of parsing.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
