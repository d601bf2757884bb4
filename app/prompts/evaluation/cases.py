"""Cases that prompts are tried on: a conversation, and what a good answer to it does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from app.conversations.types import Turn
from app.errors import InvalidRequestError
from app.providers.llm.base import Message


@dataclass(frozen=True, slots=True)
class Case:
    """A conversation that waits for an answer; `expected` says what a good one does."""

    turns: Sequence[Turn]
    expected: str
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation as a model is to go on with it."""
        messages: list[Message] = []
        for turn in self.turns:
            text = _said(turn)
            if messages and _side(turn) == messages[-1].role:
                text = f"{messages.pop().text}\n\n{text}"
            messages.append(Message(_side(turn), text))
        return tuple(messages)


def check_conversation(turns: Sequence[Turn]) -> None:
    """Raise InvalidRequestError where a model could not answer with a prompt as system text."""
    for index, turn in enumerate(turns):
        if turn.role == "system":
            raise _wrong(index, "is a system message, which is what the prompts are; leave it out")
        if not turn.text.strip():
            raise _wrong(index, "says nothing; leave it out")
    for index, where in ((0, "first"), (len(turns) - 1, "last")):
        if _side(turns[index]) == "assistant":
            raise _wrong(
                index,
                f"is the assistant's; the {where} message has to be the user's: the prompts are "
                "tried by what is answered to the last one",
            )


def _side(turn: Turn) -> Literal["user", "assistant"]:
    return "assistant" if turn.role == "assistant" else "user"


def _said(turn: Turn) -> str:
    if turn.role == "tool":
        return f"[A tool returned:]\n{turn.text}"
    has_name = turn.role == "user" and turn.speaker != turn.role
    return f"{turn.speaker}: {turn.text}" if has_name else turn.text


def _wrong(index: int, problem: str) -> InvalidRequestError:
    field_ = f"messages[{index}]"
    return InvalidRequestError(f"{field_} {problem}.", field=field_)
