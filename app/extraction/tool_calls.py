"""Execution of a model's tool calls on a draft of the memories."""

import json
import re
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import Any, TypeVar

from app.conversations.edit_values import read_edit_values
from app.conversations.memories import (
    BadContentError,
    Edit,
    LLMTask,
    Memory,
    apply_edits,
    check_content,
    parse_argument,
)
from app.conversations.prompt_text import find_message_ids
from app.extraction.prompt import DELETE, IDLE, INSERT, UPDATE, find_insertable
from app.json_values import JsonObject, replace_unstorable
from app.partial_dates import PartialDate
from app.providers.llm import ToolCall
from app.schemas import parse_date

MAX_REASON_CHARACTERS = 500
MAX_QUESTIONS, MAX_QUESTION_CHARACTERS = 3, 300

_NUMBERED = re.compile(r"m([0-9]{1,9})")
_T = TypeVar("_T")

_MAX_SHOWN = 2_000

_UNKNOWN = frozenset({"", "null", "none", "nil", "unknown", "undefined", "n/a", "na", "-"})
"""Words by which models leave a detail out."""

_IMPORTANCE_WORDS = {
    "very high": 1.0, "critical": 1.0, "essential": 1.0, "highest": 1.0,
    "high": 0.8, "important": 0.8,
    "medium": 0.5, "moderate": 0.5, "normal": 0.5, "average": 0.5,
    "low": 0.2, "minor": 0.2,
    "very low": 0.1, "trivial": 0.1, "lowest": 0.1,
}  # fmt: skip
_SCALES = ((5, 10), (10, 100))
"""Numbers above the first are of the second."""

_SHARE = re.compile(r"(\d{1,6}(?:\.\d{1,6})?)\s*(?:(?:/|of|out of)\s*(\d{1,6})|(%))")
_MAX_MESSAGE_IDS = 10_000


class Draft:
    """The memories of a run, and the edits made to them so far."""

    def __init__(self, existing: Iterable[Memory]) -> None:
        self._before = {memory.id: memory for memory in existing}
        self._now = dict(self._before)
        self._edits: dict[str, Edit] = {}
        numbers = [int(found[1]) for id_ in self._before if (found := _NUMBERED.fullmatch(id_))]
        self._last = max(numbers, default=0)

    @property
    def memories(self) -> list[Memory]:
        """The memories in their current state, new ones last."""
        return list(self._now.values())

    def get(self, memory_id: str) -> Memory | None:
        """Return a memory in its current state; None if there is none or it was deleted."""
        return self._now.get(memory_id)

    def find_before(self, memory_ids: Iterable[object]) -> tuple[Memory, ...]:
        """Return the memories with some ids as they were before the run."""
        known = dict.fromkeys(id_ for id_ in memory_ids if isinstance(id_, str))
        return tuple(self._before[id_] for id_ in known if id_ in self._before)

    def is_deleted(self, memory_id: str) -> bool:
        """Return whether the memory existed and was deleted."""
        return memory_id not in self._now and memory_id in self._edits

    def new_id(self) -> str:
        """Return an id that no memory has had."""
        self._last += 1
        return f"m{self._last}"

    def apply(self, edit: Edit) -> None:
        """Apply an edit; it is merged with earlier edits of the same memory."""
        if edit.content is None:
            del self._now[edit.memory_id]
        else:
            memory = self._now.get(edit.memory_id) or Memory(edit.memory_id, edit.kind, {})
            edit = replace(
                edit,
                importance=_first(edit.importance, memory.importance),
                valid_from=_first(edit.valid_from, memory.valid_from),
            )
            self._now[edit.memory_id] = replace(
                memory,
                content=edit.content or {},
                importance=edit.importance,
                valid_from=edit.valid_from,
            )
        self._edits[edit.memory_id] = self._merged(edit)

    def edits(self) -> tuple[Edit, ...]:
        """Return at most one edit for each memory, from its state before the run to the current."""
        return tuple(edit for edit in self._edits.values() if self._has_effect(edit))

    def _merged(self, edit: Edit) -> Edit:
        earlier = self._edits.get(edit.memory_id)
        ids, sources, questions = edit.message_ids, edit.sources, edit.questions
        if edit.content is not None and earlier is not None:
            ids = tuple(dict.fromkeys(earlier.message_ids + ids))
            sources += tuple(memory for memory in earlier.sources if memory not in sources)
            questions = questions or earlier.questions
        return replace(
            edit,
            before=self._before.get(edit.memory_id),
            message_ids=ids,
            sources=sources,
            questions=questions,
        )

    def _has_effect(self, edit: Edit) -> bool:
        if edit.action == "update" and edit.before is not None:
            is_said_again = bool(edit.message_ids or edit.sources)
            return is_said_again or _state(self._now[edit.memory_id]) != _state(edit.before)
        return edit.action == "insert" or edit.before is not None


class BadCallError(Exception):
    """The call was not executed; the message tells the model what to correct."""


class ToolCallExecutor:
    """Executes the calls of a model in order; each sees the memories that the last one left.

    So two updates of a memory both count, a delete after an update deletes, and an update after
    a delete fails.
    """

    def __init__(self, task: LLMTask, draft: Draft) -> None:
        self._task = task
        self._draft = draft

    def execute(
        self, call: ToolCall, offered: Collection[str], *, cut: bool = False, last: bool = False
    ) -> str:
        """Return the result that the model receives; raises BadCallError.

        In the `last` attempt, invalid details are left out and characters that cannot be stored
        are replaced, because a memory is worth more than its date.
        """
        if cut:
            raise BadCallError("the reply was cut off in this call")
        if call.name not in offered:
            raise BadCallError(f"there is no tool {call.name[:100]!r}; use {', '.join(offered)}")
        if call.name in IDLE:
            return "Noted."
        if call.arguments is None:
            raise BadCallError(
                "the arguments are not a JSON object, or are longer than 1 MiB, "
                "or nested deeper than 64 levels"
            )
        try:
            arguments = call.arguments
            if last:
                arguments = _without_invalid_details(_storable(arguments))
            return self._dispatch(call.name, arguments)
        except BadContentError as error:
            raise BadCallError(str(error)) from error

    def _dispatch(self, name: str, arguments: JsonObject) -> str:
        if name == UPDATE:
            return self._update(arguments)
        if name == DELETE:
            return self._delete(arguments)
        return self._insert(name.removeprefix(INSERT), arguments)

    def _insert(self, kind: str, arguments: JsonObject) -> str:
        if kind not in {kind.name for kind in find_insertable(self._task, self._draft.memories)}:
            raise BadCallError(f"there is a {kind} already, and only one is kept; update it")
        if "content" not in arguments:
            raise BadCallError("content is missing")
        content = check_content(parse_argument(arguments["content"]), self._schema(kind))
        details = self._details(arguments)
        memory_id = self._draft.new_id()
        self._draft.apply(Edit(memory_id=memory_id, kind=kind, content=content, **details))
        return f"Memory {memory_id} inserted."

    def _update(self, arguments: JsonObject) -> str:
        memory = self._memory(arguments)
        edits = arguments.get("edits")
        if edits is None and ("content" in arguments or arguments.keys() <= {"id", "edits"}):
            raise BadCallError("edits are missing")
        schema = self._schema(memory.kind)
        edits = read_edit_values(
            parse_argument([] if edits is None else edits), memory.content, schema
        )
        try:
            content = check_content(apply_edits(memory.content, edits), schema)
        except BadContentError as error:
            raise BadCallError(f"{error}. {_describe_unchanged(memory)}") from error
        details = self._details(arguments)
        self._draft.apply(
            Edit(
                memory_id=memory.id,
                before=memory,
                kind=memory.kind,
                content=content,
                **details,
            )
        )
        return f"Memory {memory.id} updated."

    def _delete(self, arguments: JsonObject) -> str:
        memory = self._memory(arguments)
        reason = _reason(arguments.get("reason"))
        if covering := self._covering(memory, arguments.get("covered_by")):
            reason = f"{reason or 'it says the same'} (covered by {covering.key or covering.id})"
            self._draft.apply(_taking_over(covering, self._draft.find_before([memory.id])))
        self._draft.apply(Edit(memory_id=memory.id, before=memory, kind=memory.kind, reason=reason))
        return f"Memory {memory.id} deleted."

    def _covering(self, memory: Memory, id_: object) -> Memory | None:
        """Return the memory that is kept in place of a deleted one, if the model names one."""
        if id_ is None or _is_unknown(id_):
            return None
        covering = self._draft.get(id_) if isinstance(id_, str) else None
        if covering is None or covering.id == memory.id:
            raise BadCallError(
                f"covered_by must be another memory that is kept, not {json.dumps(id_)[:100]}"
            )
        return covering

    def _memory(self, arguments: JsonObject) -> Memory:
        id_ = arguments.get("id")
        memory = self._draft.get(id_) if isinstance(id_, str) else None
        if memory is not None:
            return memory
        if isinstance(id_, str) and self._draft.is_deleted(id_):
            raise BadCallError(f"memory {id_} was deleted before")
        ids = ", ".join(memory.id for memory in self._draft.memories)
        raise BadCallError(
            f"there is no memory with the id {json.dumps(id_)[:100]}; there are {ids}"
        )

    def _schema(self, kind: str | None) -> JsonObject | None:
        # Memories of other kinds may exist as well; they have no schema here.
        return next((known.schema for known in self._task.kinds if known.name == kind), None)

    def _details(self, arguments: JsonObject) -> JsonObject:
        shown, turns = arguments.get("message_ids"), self._task.turns
        return {
            "importance": _importance(arguments.get("importance")),
            "valid_from": _valid_from(arguments.get("valid_from")),
            "message_ids": find_message_ids(_message_ids(shown), turns),
            "sources": self._draft.find_before(_ids(arguments.get("memory_ids"))),
            "questions": _questions(arguments.get("questions")),
        }


def _taking_over(memory: Memory, covered: tuple[Memory, ...]) -> Edit:
    """Return the edit by which a memory takes over the times of those that it covers."""
    return Edit(
        memory_id=memory.id,
        before=memory,
        kind=memory.kind,
        content=memory.content,
        sources=covered,
    )


def _storable(node: Any) -> Any:
    """Return a JSON value whose texts can be stored."""
    if isinstance(node, str):
        return replace_unstorable(node)
    if isinstance(node, list):
        return [_storable(inner) for inner in node]
    if isinstance(node, dict):
        return {replace_unstorable(name): _storable(inner) for name, inner in node.items()}
    return node


def _without_invalid_details(arguments: JsonObject) -> JsonObject:
    valid = dict(arguments)
    for name, read in (("importance", _importance), ("valid_from", _valid_from)):
        try:
            read(arguments.get(name))
        except BadCallError:
            del valid[name]
    return valid


def _importance(importance: object) -> float | None:
    """Return an importance from 0 to 1, which models also give in words, of 10, or of 100."""
    if importance is None or _is_unknown(importance):
        return None
    if isinstance(importance, str):
        importance = _number_in_words(importance.strip().casefold())
    if isinstance(importance, bool) or not isinstance(importance, int | float):
        raise BadCallError("importance must be a number from 0 to 1")
    if not 0 <= importance <= 1:  # neither is NaN
        # Up to 5 it may be of 5 or of 10: the model has to say.
        scale = next((most for least, most in _SCALES if least < importance <= most), None)
        if scale is None:
            raise BadCallError(f"importance must be from 0 to 1, not {importance}")
        importance /= scale
    return float(importance)


def _number_in_words(text: str) -> object:
    """Return the number that a text means; the text itself if it means none."""
    if text in _IMPORTANCE_WORDS:
        return _IMPORTANCE_WORDS[text]
    if share := _SHARE.fullmatch(text):
        whole = float(share[2] or 100)
        return float(share[1]) / whole if whole else text
    with suppress(ValueError):
        return float(text)
    return text


def _is_unknown(value: object) -> bool:
    return isinstance(value, str) and value.strip().casefold() in _UNKNOWN


def _message_ids(shown: object) -> list[object]:
    """Return the ids of messages, which models also write as one text or number."""
    shown = parse_argument(shown)
    if isinstance(shown, str):
        return list(re.findall(r"\d{1,9}", shown[:_MAX_MESSAGE_IDS]))
    return shown if isinstance(shown, list) else [shown]


def _ids(shown: object) -> list[object]:
    """Return the ids of memories, which models also write as one text."""
    shown = parse_argument(shown)
    if isinstance(shown, str):
        return list(re.findall(r"m\d{1,9}", shown[:_MAX_MESSAGE_IDS]))
    return shown if isinstance(shown, list) else []


def _questions(questions: object) -> tuple[str, ...]:
    """Return the questions that can be stored; others are left out."""
    questions = parse_argument(questions)
    texts = questions if isinstance(questions, list) else [questions]
    clean = (replace_unstorable(text).strip() for text in texts if isinstance(text, str))
    fitting = (text for text in clean if 0 < len(text) <= MAX_QUESTION_CHARACTERS)
    return tuple(islice(dict.fromkeys(fitting), MAX_QUESTIONS))


def _valid_from(date: object) -> PartialDate | None:
    if date is None or _is_unknown(date):
        return None
    date = str(date) if type(date) is int else date
    try:
        return parse_date(date)
    except ValueError as error:
        raise BadCallError(
            f"valid_from must be a date such as 2026-05-03, 2026-05 or 2026, or null, "
            f"not {json.dumps(date)[:100]}"
        ) from error


def _reason(reason: object) -> str | None:
    if not isinstance(reason, str):
        return None
    return replace_unstorable(reason, "")[:MAX_REASON_CHARACTERS].strip() or None


def _describe_unchanged(memory: Memory) -> str:
    content = json.dumps(memory.content, ensure_ascii=False)
    if len(content) > _MAX_SHOWN:
        return f"Memory {memory.id} is unchanged"
    return f"Memory {memory.id} is unchanged; its content is {content}"


def _first(later: _T | None, earlier: _T | None) -> _T | None:
    return earlier if later is None else later


def _state(memory: Memory) -> tuple[Any, ...]:
    # As JSON, in which 1 is not true.
    return json.dumps(memory.content, sort_keys=True), memory.importance, memory.valid_from
