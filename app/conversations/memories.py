"""Memories: their content and how stored values hold it, and the edits that models propose."""

import copy
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, TypeAlias

import jsonpatch
from jsonpointer import JsonPointerException, resolve_pointer

from app.conversations.call_habits import CallHabit
from app.conversations.kinds import Kind
from app.conversations.messages import SourceClass, Turn
from app.conversations.schema_assertions import TooManyChecksError
from app.conversations.schema_validator import validator_of
from app.json_values import JsonObject, UnstorableError, check_storable
from app.namespaces import StoredNamespace
from app.partial_dates import PartialDate

MAX_CONTENT_BYTES = 65_536
"""Maximum size of a content as JSON."""

MAX_EDITS = 200
"""Maximum edits in one update."""

OPERATIONS = ("add", "replace", "remove", "append")
"""Operations of edits: those of a JSON Patch, and one that adds to a text or a list."""

_MAX_FAULT_CHARACTERS = 300

Basis: TypeAlias = tuple[tuple[StoredNamespace, str, int], ...]
"""Stored namespaces, keys, and versions of items that an edit relies on."""


class MemoryFormat(StrEnum):
    """How a stored value holds a memory's content."""

    MEMORY = "memory"  # {"kind": …, "content": {…}}, the format of managers
    CONTENT = "content"  # {"content": …}, the format of LangMem's manage_memory tool
    VALUE = "value"  # any other object, which is the content itself


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
    valid_from: PartialDate | None = None
    valid_to: PartialDate | None = None
    said_first: datetime | None = None
    said_last: datetime | None = None
    source_class: SourceClass | None = None
    updated_at: datetime | None = None
    is_stale: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """The next state of one memory: `before` is None for a new memory, `content` for a deleted one.

    A tool call of a model becomes an edit, without `namespace` (a stored namespace) and `key`;
    reconciling fills these in, and the edit becomes a write to the store. They stay None if
    nothing is stored. `basis` lists the items without which the edit would lose information,
    `sources` the other memories that it rests on.
    """

    memory_id: str
    before: Memory | None = None
    kind: str | None = None
    content: JsonObject | None = None
    importance: float | None = None
    valid_from: PartialDate | None = None
    message_ids: tuple[str, ...] = ()
    sources: tuple[Memory, ...] = ()
    reason: str | None = None
    questions: tuple[str, ...] = ()
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
class Proposal:
    """Result of a model's run: at most one edit for each memory, and the habit it reveals.

    `read` are the messages that were read, the first of the conversation without its context.
    """

    edits: tuple[Edit, ...] = ()
    rejected: tuple[Rejection, ...] = ()
    steps: int = 0
    read: int = 0
    habit: CallHabit = field(default=CallHabit.UNKNOWN, compare=False)


@dataclass(frozen=True, slots=True)
class LLMTask:
    """A model's task: extract memories from `turns`, or, without turns, tidy up the existing ones.

    The first `context_turns` turns only give context for the others. `habit` is the known one of
    the model. If no other attempt follows, not even a provider that is away may cost the changes
    made so far: they are kept. `existing_are_all` says that no other memories are kept. If
    `memory_characters` is set, no more of the existing ones are shown. `with_questions` asks for
    questions that each memory answers.
    """

    turns: Sequence[Turn]
    existing: Sequence[Memory]
    kinds: Sequence[Kind]
    rights: Rights = field(default_factory=Rights)
    instructions: str | None = None
    max_steps: int = 1
    now: datetime | None = None
    context_turns: int = 0
    habit: CallHabit = CallHabit.SEVERAL
    may_be_retried: bool = True
    existing_are_all: bool = True
    memory_characters: int | None = None
    with_questions: bool = False


class BadContentError(Exception):
    """The content cannot be stored; the message tells a model what to correct."""


def read_value(value: Mapping[str, Any]) -> tuple[MemoryFormat, str | None, JsonObject]:
    """Return the format of a memory's stored value, the memory's kind, and its content.

    A value with members besides those of a format is content as a whole, so nothing is lost.
    """
    content = value.get("content")
    if isinstance(content, dict):
        kind = value.get("kind")
        if isinstance(kind, str) and len(value) == 2:
            return MemoryFormat.MEMORY, kind, content
        if len(value) == 1:
            return MemoryFormat.CONTENT, None, content
    return MemoryFormat.VALUE, None, dict(value)


def write_value(format_: MemoryFormat, kind: str | None, content: JsonObject) -> JsonObject:
    """Return the value of a memory in a format."""
    match format_:
        case MemoryFormat.MEMORY:
            return {"kind": kind, "content": content}
        case MemoryFormat.CONTENT:
            return {"content": content}
        case MemoryFormat.VALUE:
            return content


def check_content(content: object, schema: JsonObject | None) -> JsonObject:
    """Return the content if it can be stored and fits its kind's schema, if there is one."""
    if not isinstance(content, dict):
        shown = "a list" if isinstance(content, list) else json.dumps(content)[:100]
        raise BadContentError(f"content must be an object, not {shown}")
    _check_json({"content": content}, "memory")
    size = len(json.dumps(content, ensure_ascii=False).encode())
    if size > MAX_CONTENT_BYTES:
        raise BadContentError(
            f"content is {size:,} bytes of JSON; at most {MAX_CONTENT_BYTES:,} are kept"
        )
    if schema is not None and (faults := _faults(content, schema)):
        raise BadContentError("content does not fit its kind: " + "; ".join(faults))
    return content


def parse_argument(argument: object) -> object:
    """Return an argument's value; some models write nested values as JSON text."""
    if isinstance(argument, str):
        with suppress(ValueError, RecursionError):
            return json.loads(argument)
    return argument


def apply_edits(content: JsonObject, edits: object) -> Any:
    """Return the result of edits of a content; it may be any JSON value."""
    if not isinstance(edits, list):
        raise BadContentError("edits must be a list of operations")
    if len(edits) > MAX_EDITS:
        raise BadContentError(
            f"there are {len(edits):,} edits; one update takes at most {MAX_EDITS}. "
            "Replace a larger part at once"
        )
    _check_json(edits, "edits")
    document: Any = copy.deepcopy(content)
    for number, edit in enumerate(edits, start=1):
        if not isinstance(edit, dict) or edit.get("op") not in OPERATIONS:
            raise BadContentError(f"edit {number}: op must be one of {', '.join(OPERATIONS)}")
        try:
            # A copy of the edit, because later ones may change its value in place.
            operation = _to_operation(document, copy.deepcopy(edit))
            document = jsonpatch.apply_patch(document, [operation], in_place=True)
        # An index of thousands of digits is a ValueError.
        except (jsonpatch.JsonPatchException, JsonPointerException, TypeError, ValueError) as error:
            path = _clip(repr(edit.get("path")))
            raise BadContentError(
                f"edit {number} ({edit['op']} {path}) does not apply: {_clip(str(error))}"
            ) from error
    return document


def _to_operation(document: Any, edit: JsonObject) -> JsonObject:
    """Return an edit as an operation of a JSON Patch; raises TypeError or ValueError."""
    if edit["op"] != "append":
        return edit
    present, added = resolve_pointer(document, str(edit.get("path"))), edit.get("value")
    if isinstance(present, list):
        return {"op": "add", "path": f"{edit['path']}/-", "value": added}
    if not isinstance(present, str) or not isinstance(added, str):
        raise TypeError("append adds to a text or to a list")
    spaced = (present[-1:] + added[:1]).isascii() and added[:1].isalnum() and present[-1:] > " "
    joined = f"{present} {added}" if spaced else present + added
    return {"op": "replace", "path": edit["path"], "value": joined}


def _check_json(value: object, name: str) -> None:
    try:
        check_storable(value, name)
    except UnstorableError as error:
        raise BadContentError(str(error)) from error


def _faults(content: JsonObject, schema: JsonObject) -> list[str]:
    try:
        faults = validator_of(schema).faults(content)
    except TooManyChecksError as error:
        raise BadContentError(f"content {error}") from error
    return [f"content{fault.place}: {_clip(fault.message)}" for fault in faults]


def _clip(message: str) -> str:
    # The middle is left out: such messages begin with the value and end with the problem.
    if len(message) <= _MAX_FAULT_CHARACTERS:
        return message
    half = _MAX_FAULT_CHARACTERS // 2
    return f"{message[:half]} … {message[-half:]}"
