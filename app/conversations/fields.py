"""Types of fields in request bodies on conversations and models."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from app.json_values import check_storable_text
from app.schemas import CLEAN

MAX_INSTRUCTIONS_CHARACTERS = 50_000
MAX_ID_CHARACTERS = 512

MODEL_NAME = r"^[a-z0-9][a-z0-9_-]{0,63}:[^\s\x00-\x1f\x7f]{1,200}$"


def match_pattern(pattern: str, expected: str) -> AfterValidator:
    """Return a validator that describes what is `expected` instead of the pattern."""

    def check(text: str) -> str:
        if re.fullmatch(pattern, text) is None:
            raise ValueError(f"is not {expected}")
        return text

    return AfterValidator(check)


ModelName = Annotated[
    str,
    Field(
        json_schema_extra={"pattern": MODEL_NAME},
        description="`PROVIDER:MODEL`, such as `openai:MODEL`; absent: the server's MEMORYD_LLM.",
        examples=["anthropic:claude-sonnet-5-5"],
    ),
    match_pattern(
        MODEL_NAME, "PROVIDER:MODEL, such as openai:MODEL; put the provider before the model"
    ),
]
Instructions = Annotated[
    str,
    Field(max_length=MAX_INSTRUCTIONS_CHARACTERS, json_schema_extra=CLEAN),
    AfterValidator(check_storable_text),
]
Id = Annotated[
    str,
    Field(min_length=1, max_length=MAX_ID_CHARACTERS, json_schema_extra=CLEAN),
    AfterValidator(check_storable_text),
]
