"""What a completion costs, by the list prices of prices.json."""

import json
import re
from importlib.resources import files
from typing import NotRequired, TypedDict

_DATE = re.compile(r"-(?:\d{8}|\d{4}-\d\d-\d\d)$")
_TOKENS = 1_000_000


class _Price(TypedDict):
    input: float
    cached: float
    written: float
    output: float
    up_to: NotRequired[int]


_PRICES: dict[str, _Price] = json.loads(
    files("app.providers.llm").joinpath("prices.json").read_text("utf-8")
)["models"]


def cost(
    model: str,
    *,
    input_tokens: int,
    output_tokens: int,
    cached_tokens: int = 0,
    written_tokens: int = 0,
) -> float | None:
    """Return US dollars; None for a model, or a length, whose price is not listed.

    A model's name may carry a date. `input_tokens` include the cached and the written ones.
    """
    price = _PRICES.get(_DATE.sub("", model))
    if price is None or input_tokens > price.get("up_to", input_tokens):
        return None
    plain_tokens = input_tokens - cached_tokens - written_tokens
    total = (
        plain_tokens * price["input"]
        + cached_tokens * price["cached"]
        + written_tokens * price["written"]
        + output_tokens * price["output"]
    )
    return total / _TOKENS
