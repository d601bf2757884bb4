"""Base64 and hexadecimal data in texts, which have no words to find."""

import re

_LEAST_CHARACTERS = 200
"""Shorter runs may be identifiers that people search for."""

_LETTER = "[A-Za-z0-9+/_-]"
_DATA_URL = re.compile(r"data:[\w/+.-]{0,100}(?:;[\w.=-]{1,50}){0,5};base64,[A-Za-z0-9+/=_%-]*+")
# A run, or lines of at least 60 characters and a last one; a line break in JSON is `\n`.
_RUN = re.compile(
    rf"(?<!{_LETTER}){_LETTER}{{60,}}+(?:(?:\\[rn]|[\r\n])++{_LETTER}++(?![^\s\\\"'=]))*+={{0,2}}"
)


def remove_encoded_data(text: str) -> str:
    """Return a text with a space in place of encoded data; takes time linear in its length."""
    if len(text) < _LEAST_CHARACTERS:
        return text
    text = _DATA_URL.sub(" ", text)
    return _RUN.sub(lambda run: " " if _is_encoded(run[0]) else run[0], text)


def _is_encoded(run: str) -> bool:
    """Return whether a run has the mixture of letters and digits of data, and not of words."""
    size = len(run)
    if size < _LEAST_CHARACTERS:
        return False
    digits = sum(map(run.count, "0123456789"))
    lower = sum(map(run.count, "abcdefghijklmnopqrstuvwxyz"))
    upper = sum(map(run.count, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"))
    is_mixed = min(lower, upper) > size * 0.15 and digits > size * 0.03
    others = size - digits - sum(map(run.count, "abcdefABCDEF"))
    is_hexadecimal = others <= size * 0.05 and digits > size * 0.3
    return is_mixed or is_hexadecimal
