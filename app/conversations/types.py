"""Memories as managers see them, and the changes that models propose to them."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeAlias

from app.providers.llm.base import Completion, Request

Ask: TypeAlias = Callable[[Request, str], Awaitable[Completion]]
"""Asks a model, for a purpose that the job's account names; raises ProviderError."""


class Shape(StrEnum):
    """How a stored value holds a memory's content."""

    MEMORY = "memory"  # {"kind": …, "content": {…}}, as managers write it
    CONTENT = "content"  # {"content": …}, as LangMem's manage_memory tool writes it
    VALUE = "value"  # any other object, which is the content itself


@dataclass(frozen=True, slots=True)
class Kind:
    """A named JSON Schema for memories; `single` keeps one document of the kind: a profile."""

    name: str
    description: str
    schema: dict[str, Any]
    single: bool = False


@dataclass(frozen=True, slots=True)
class Existing:
    """A memory that is there already; `id` is the short name under which a model sees it.

    `namespace` is a stored one; it, `key` and `version` are None for memories of a request.
    """

    id: str
    kind: str | None
    content: dict[str, Any]
    shape: Shape = Shape.MEMORY
    namespace: str | None = None
    key: str | None = None
    version: int | None = None
    importance: float | None = None
    valid_from: datetime | None = None
    updated_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Insert:
    """A new memory; `memory_id` is how later steps of the same extraction refer to it."""

    memory_id: str
    kind: str
    content: dict[str, Any]
    importance: float | None = None
    valid_from: datetime | None = None
    message_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Update:
    """The whole next content of an existing memory."""

    memory_id: str
    kind: str | None
    content: dict[str, Any]
    importance: float | None = None
    valid_from: datetime | None = None
    message_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Delete:
    """The end of an existing memory."""

    memory_id: str
    reason: str | None = None


Change: TypeAlias = Insert | Update | Delete


@dataclass(frozen=True, slots=True)
class Rejected:
    """A call of a model that was not carried out, and why; `wanted` are its arguments as sent."""

    tool: str
    reason: str
    wanted: str | None = field(default=None, compare=False)

    def members(self) -> dict[str, str]:
        """Return what a job's result tells of it."""
        told = {"tool": self.tool, "reason": self.reason}
        return told if self.wanted is None else {**told, "wanted": self.wanted}


@dataclass(frozen=True, slots=True)
class Rights:
    """What a model may do with memories."""

    inserts: bool = True
    updates: bool = True
    deletes: bool = False


@dataclass(frozen=True, slots=True)
class Turn:
    """A message of a conversation as models are shown it."""

    id: str
    speaker: str  # "user", "assistant", "tool", or the name that the message gives
    text: str
    role: str = "user"
    said_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Proposed:
    """What a run of a model came to: at most one change for each memory."""

    changes: tuple[Change, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    steps: int = 0


@dataclass(frozen=True, slots=True)
class Task:
    """What a model is asked to do with memories; `turns` are empty where it only tidies up.

    The first `context_turns` of them are only there to make sense of the others.
    """

    turns: Sequence[Turn]
    existing: Sequence[Existing]
    kinds: Sequence[Kind]
    rights: Rights = field(default_factory=Rights)
    instructions: str | None = None
    max_steps: int = 1
    now: datetime | None = None
    context_turns: int = 0
