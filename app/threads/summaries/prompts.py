"""What models are told about summaries: the texts of `templates/summarize*.md`, filled in."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from string import Template
from typing import Any

from app.conversations.prompt_text import CONVERSATION_TAGS, render_turns
from app.conversations.types import Turn
from app.providers.llm.base import Tool

RECORD = "record"
"""The tool that models record a thread with."""

THREAD_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "Records a conversation in brief.",
    "properties": {
        "title": {
            "type": "string",
            "description": "What the conversation is about, in at most ten words.",
        },
        "summary": {
            "type": "string",
            "description": "What was wanted, said and decided, and what is left open, in one "
            "paragraph or a few.",
        },
    },
    "required": ["title", "summary"],
    "additionalProperties": False,
}
"""What is recorded where the request has no schema."""

_NAMES = ("text", "first", "next", "record", "record_first", "record_next", "instructions")
_FOLDER = files("app.threads").joinpath("templates")
_TEXTS: Mapping[str, str] = {
    name: _FOLDER.joinpath(f"summarize_{name}.md").read_text(encoding="utf-8").strip()
    for name in _NAMES
}

_WORDS_PER_TOKEN = 0.75  # of English
_FEWEST_WORDS = 20


def summary_system(instructions: str | None, max_tokens: int) -> str:
    """Return how to write a summary of about so many tokens."""
    words = max(_FEWEST_WORDS, round(max_tokens * _WORDS_PER_TOKEN))
    return _guided(_filled("text", words=str(words)), instructions)


def record_system(instructions: str | None) -> str:
    """Return how to fill in the record of a conversation."""
    return _guided(_TEXTS["record"], instructions)


def summary_request(turns: Sequence[Turn], earlier: str | None) -> str:
    """Return messages to sum up, and the summary of all before them."""
    return _about("first", "next", turns, earlier)


def record_request(turns: Sequence[Turn], earlier: str | None) -> str:
    """Return messages to record, and the summary of all before them."""
    return _about("record_first", "record_next", turns, earlier)


def record_tool(schema: dict[str, Any]) -> Tool:
    """Return the tool that takes what a schema describes."""
    described = schema.get("description") or "Records what the conversation comes to."
    return Tool(RECORD, described, schema)


def _about(first: str, later: str, turns: Sequence[Turn], earlier: str | None) -> str:
    conversation = render_turns(turns)
    if earlier is None:
        return _filled(first, conversation=conversation)
    return _filled(later, summary=CONVERSATION_TAGS.escape(earlier), conversation=conversation)


def _guided(text: str, instructions: str | None) -> str:
    if instructions is None or not instructions.strip():
        return text
    guidance = _filled("instructions", instructions=CONVERSATION_TAGS.escape(instructions.strip()))
    return f"{text}\n\n{guidance}"


def _filled(name: str, **values: str) -> str:
    return Template(_TEXTS[name]).substitute(values)
