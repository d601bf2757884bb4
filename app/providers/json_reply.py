"""The JSON of a provider's reply, read within limits."""

import json
import re
from typing import Any

from app.json_values import TooDeepError, check_values, is_deeper, parse_json

MAX_BYTES = 2 << 20
MAX_VALUES = 200_000
MAX_DEPTH = 100

_SURROGATE = re.compile("[\ud800-\udfff]")


def parse_reply(body: bytes, *, max_bytes: int = MAX_BYTES, max_values: int = MAX_VALUES) -> Any:
    """Return a reply's JSON without lone surrogates; raises ValueError if invalid or too large."""
    if len(body) > max_bytes:
        raise ValueError(f"it is longer than {max_bytes >> 20} MiB")
    check_values(body, max_values)
    try:
        value = parse_json(body)
    except TooDeepError:
        raise
    except ValueError:
        value = parse_json(_without_surrogates(body))
    if is_deeper(value, MAX_DEPTH):
        raise TooDeepError(f"it is nested deeper than {MAX_DEPTH} levels")
    return value


def _without_surrogates(body: bytes) -> bytes:
    """Return the JSON with U+FFFD in place of lone surrogates."""
    try:
        text = json.dumps(json.loads(body.decode(errors="replace")), ensure_ascii=False)
    except RecursionError as error:
        raise TooDeepError("it is nested too deep") from error
    return _SURROGATE.sub("\ufffd", text).encode()
