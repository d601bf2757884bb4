"""Prompts as the program handles them, and the limits of their texts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from app.json_values import check_storable_text

PRODUCTION, CANDIDATE = "production", "candidate"

MAX_TEXT_CHARACTERS = 200_000
MAX_ANALYSIS_CHARACTERS = 50_000
MAX_LABELS = 50
MAX_VERSION = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt with one of its versions, and the labels that point to this version."""

    name: str
    revision: int
    newest: int
    update_instructions: str | None
    when_to_update: str | None
    updated_at: datetime
    version: int
    text: str
    based_on: int | None
    analysis: str | None
    actor: str
    created_at: datetime
    labels: Sequence[str]


@dataclass(frozen=True, slots=True)
class PromptState:
    """A prompt's whole next state; without `labels`, production points to a new prompt."""

    text: str
    update_instructions: str | None = None
    when_to_update: str | None = None
    labels: Sequence[str] | None = None
    analysis: str | None = None


@dataclass(frozen=True, slots=True)
class PromptSummary:
    """A prompt in a list, without its text; `labels` maps each label to its version."""

    name: str
    newest_version: int
    update_instructions: str | None
    when_to_update: str | None
    created_at: datetime
    updated_at: datetime
    labels: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class PromptVersion:
    """A version in a list, without its text."""

    version: int
    characters: int
    based_on: int | None
    analysis: str | None
    actor: str
    created_at: datetime
    labels: Sequence[str]


def check_text(text: str) -> str:
    """Return a prompt's text; raises ValueError if it is empty, too long, or cannot be stored."""
    if not text.strip():
        raise ValueError("is empty; a prompt has a text")
    if len(text) > MAX_TEXT_CHARACTERS:
        raise ValueError(f"has {len(text):,} characters; use at most {MAX_TEXT_CHARACTERS:,}")
    return check_storable_text(text)
