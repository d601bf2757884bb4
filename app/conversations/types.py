"""Types of the kernel: turns, kinds, memories, and the edits that models propose."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal, TypeAlias

from app.json_values import JsonObject
from app.namespaces import StoredNamespace
from app.providers.llm import Completion, Request

Ask: TypeAlias = Callable[[Request, str], Awaitable[Completion]]
"""Sends a request to a model for a purpose, which the job's log names; raises ProviderError."""

Basis: TypeAlias = tuple[tuple[StoredNamespace, str, int], ...]
"""Stored namespaces, keys, and versions of items that an edit relies on."""


class MemoryFormat(StrEnum):
    """How a stored value holds a memory's content."""

    MEMORY = "memory"  # {"kind": …, "content": {…}}, the format of managers
    CONTENT = "content"  # {"content": …}, the format of LangMem's manage_memory tool
    VALUE = "value"  # any other object, which is the content itself


@dataclass(frozen=True, slots=True)
class Kind:
    """A named JSON Schema for memories; a `singleton` has one document, such as a profile."""

    name: str
    description: str
    schema: JsonObject
    singleton: bool = False


@dataclass(frozen=True, slots=True)
class Memory:
    """An existing memory; `id` is the short name that a model sees.

    `namespace` is a stored namespace. It, `key`, and `version` are None for memories sent with a
    request.
    """

    id: str
    kind: str | None
    content: JsonObject
    format: MemoryFormat = MemoryFormat.MEMORY
    namespace: StoredNamespace | None = None
    key: str | None = None
    version: int | None = None
    importance: float | None = None
    valid_from: datetime | None = None
    updated_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """The next state of one memory: `before` is None for a new memory, `content` for a deleted one.

    A tool call of a model becomes an edit, without `namespace` (a stored namespace) and `key`;
    reconciling fills these in, and the edit becomes a write to the store. They stay None if
    nothing is stored. `basis` lists the items without which the edit would lose information.
    """

    memory_id: str
    before: Memory | None = None
    kind: str | None = None
    content: JsonObject | None = None
    importance: float | None = None
    valid_from: datetime | None = None
    message_ids: tuple[str, ...] = ()
    reason: str | None = None
    namespace: StoredNamespace | None = None
    key: str | None = None
    basis: Basis = ()

    @property
    def action(self) -> Literal["insert", "update", "delete"]:
        """Effect of the edit on the item."""
        if self.content is None:
            return "delete"
        return "insert" if self.before is None else "update"


@dataclass(frozen=True, slots=True)
class Rejection:
    """A tool call that was not executed, and the reason; `arguments` are as the model sent them."""

    tool: str
    reason: str
    arguments: str | None = field(default=None, compare=False)

    def members(self) -> dict[str, str]:
        """Return the rejection as JSON for a job's result."""
        members = {"tool": self.tool, "reason": self.reason}
        return members if self.arguments is None else {**members, "arguments": self.arguments}


@dataclass(frozen=True, slots=True)
class Rights:
    """Edits that a model may propose."""

    inserts: bool = True
    updates: bool = True
    deletes: bool = False


@dataclass(frozen=True, slots=True)
class Turn:
    """A message of a conversation as models see it."""

    id: str
    speaker: str  # "user", "assistant", "tool", or the name in the message
    text: str
    role: str = "user"
    said_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Proposal:
    """Result of a model's run: at most one edit for each memory."""

    edits: tuple[Edit, ...] = ()
    rejected: tuple[Rejection, ...] = ()
    steps: int = 0


@dataclass(frozen=True, slots=True)
class LLMTask:
    """A model's task: extract memories from `turns`, or, without turns, tidy up the existing ones.

    The first `context_turns` turns only give context for the others.
    """

    turns: Sequence[Turn]
    existing: Sequence[Memory]
    kinds: Sequence[Kind]
    rights: Rights = field(default_factory=Rights)
    instructions: str | None = None
    max_steps: int = 1
    now: datetime | None = None
    context_turns: int = 0
