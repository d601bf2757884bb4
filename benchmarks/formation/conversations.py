"""Conversations with questions: ours, and files of the same form elsewhere."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

OURS = Path(__file__).with_name("conversation.json")

CATEGORIES = {1: "multi-hop", 2: "temporal", 3: "open-domain", 4: "single-hop"}
"""Kinds of questions that have an answer."""

TEMPORAL = 2

_TIME = "%I:%M %p on %d %B, %Y"


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a session; `extra` holds calls of tools and the call that a result is for."""

    id: str
    speaker: str
    role: str
    text: str
    said_at: datetime
    extra: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Session:
    """Messages of one occasion."""

    name: str
    messages: list[Message]


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its answer and the ids of the messages that hold it."""

    number: int
    text: str
    answer: str
    category: int
    evidence: list[str]


@dataclass(frozen=True, slots=True)
class Unwanted:
    """A thing that no memory may hold, and texts that betray it."""

    description: str
    strings: list[str]


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation, its questions, and its facts, if the file lists them."""

    id: str
    sessions: list[Session]
    questions: list[Question]
    facts: list[str]
    unwanted: list[Unwanted]

    @property
    def messages(self) -> dict[str, Message]:
        """All messages by their ids."""
        return {message.id: message for session in self.sessions for message in session.messages}


def load(path: Path, conversation: str | None, sessions: int | None = None) -> Conversation:
    """Read a conversation of a file, the first if none is named, up to a number of sessions."""
    found = json.loads(path.read_text())
    chosen = next(c for c in found if conversation in (None, c["id"]))
    read = [_session(session) for session in chosen["sessions"][:sessions]]
    known = {message.id for session in read for message in session.messages}
    questions = [
        Question(number, q["question"], str(q["answer"]), q["category"], q["evidence"])
        for number, q in enumerate(chosen["questions"], start=1)
        if q["category"] in CATEGORIES and known.issuperset(q["evidence"])
    ]
    unwanted = [Unwanted(**entry) for entry in chosen.get("unwanted", [])]
    return Conversation(chosen["id"], read, questions, chosen.get("facts", []), unwanted)


def _session(session: dict[str, Any]) -> Session:
    said_at = datetime.strptime(session["date_time"], _TIME).replace(tzinfo=UTC)
    messages = [_message(turn, said_at) for turn in session["turns"]]
    return Session(str(session["session"]), messages)


def _message(turn: dict[str, Any], said_at: datetime) -> Message:
    caption = turn.get("blip_caption")
    text = f"{turn['text']}\n[picture: {caption}]" if caption else turn["text"]
    extra: dict[str, Any] = {
        name: turn[name] for name in ("tool_calls", "tool_call_id") if name in turn
    }
    role = turn.get("role", "user")
    return Message(turn["dia_id"], turn["speaker"], role, text, said_at, extra)
