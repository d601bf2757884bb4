"""Base64 and hexadecimal data in texts, which have no words to read or to find."""

import re
from collections.abc import Callable

_LEAST_CHARACTERS = 200
"""Shorter runs may be identifiers that people search for."""

_DATA_URL = re.compile(
    r"data:[\w/+.-]{0,100}(?:;[\w.=-]{1,50}){0,5};base64,(?:[A-Za-z0-9+/=_%-]++|\\/)*+",
    re.IGNORECASE,
)


def _runs_of(letter: str) -> re.Pattern[str]:
    """Return the pattern of a run, or of lines of at least 60 characters and a last one."""
    line_break = r"(?:\\[rn]|[\r\n])"  # in JSON it is `\n`
    return re.compile(
        rf"(?<![A-Za-z0-9+/_-]){letter}{{60,}}+"
        rf"(?:{line_break}++{letter}++(?![^\s\\\"'=]))*+={{0,2}}"
    )


_RUN = _runs_of("[A-Za-z0-9+/_-]")
_ESCAPED_RUN = _runs_of(r"(?:[A-Za-z0-9+/_-]|\\/)")  # some write a slash in JSON like this

_DIGITS = b"0123456789"
_LOWER = b"abcdefghijklmnopqrstuvwxyz"
_HEXADECIMAL = b"abcdefABCDEF"


def remove_encoded_data(text: str) -> str:
    """Return a text with a space in place of encoded data; takes time linear in its length."""
    return _replace(text, lambda _: " ")


def mark_encoded_data(text: str) -> str:
    """Return a text with a mark in place of encoded data, which names its length."""
    return _replace(text, lambda data: f"[{len(data):,} characters of encoded data]")


def _replace(text: str, mark: Callable[[str], str]) -> str:
    if len(text) < _LEAST_CHARACTERS:
        return text
    pattern = _ESCAPED_RUN if "\\/" in text else _RUN
    text = _DATA_URL.sub(lambda url: mark(url[0]), text)
    return pattern.sub(lambda run: mark(run[0]) if _is_encoded(run[0].encode()) else run[0], text)


def _is_encoded(run: bytes) -> bool:
    """Return whether a run has the mixture of letters and digits of data, and not of words."""
    size = len(run)
    if size < _LEAST_CHARACTERS:
        return False
    digits, lower, upper = (_count(run, some) for some in (_DIGITS, _LOWER, _LOWER.upper()))
    is_mixed = min(lower, upper) > size * 0.15 and digits > size * 0.03
    others = size - digits - _count(run, _HEXADECIMAL)
    is_hexadecimal = others <= size * 0.05 and digits > size * 0.3
    return is_mixed or is_hexadecimal


def _count(run: bytes, some: bytes) -> int:
    return len(run) - len(run.translate(None, some))
