"""Checking a model's tool calls and carrying them out on a draft."""

import json
import re
from collections.abc import Collection
from contextlib import suppress
from datetime import datetime
from typing import Any

from app.conversations.content import BadContentError, check_content, edited, unquoted
from app.conversations.prompt_text import find_message_ids
from app.conversations.types import Edit, LLMTask, Memory
from app.extraction import tools
from app.extraction.draft import Draft
from app.json_values import replace_unstorable
from app.providers.llm.base import ToolCall
from app.schemas import parse_time

MAX_REASON_CHARACTERS = 500

_MONTH = re.compile(r"\d{4}(-\d\d)?")
_MAX_SHOWN = 2_000


class BadCallError(Exception):
    """A call that was not carried out; the message says why, for the model to correct it."""


class Clerk:
    """Carries out the calls of a model, one after the other; each sees what the last one left.

    So two updates of a memory both count, a delete after an update deletes, and an update after
    a delete fails.
    """

    def __init__(self, task: LLMTask, draft: Draft) -> None:
        self._task = task
        self._draft = draft

    def carry_out(
        self, call: ToolCall, offered: Collection[str], *, cut: bool = False, last: bool = False
    ) -> str:
        """Return what to tell the model about its call; raises BadCallError.

        In the `last` attempt, a memory is worth more than its date: details that are wrong are
        left out.
        """
        if cut:
            raise BadCallError("the reply was cut off in this call")
        if call.name not in offered:
            raise BadCallError(f"there is no tool {call.name[:100]!r}; use {', '.join(offered)}")
        if call.name in tools.IDLE:
            return "Noted."
        if call.arguments is None:
            raise BadCallError(
                "the arguments are not a JSON object, or are longer than 1 MiB, "
                "or nested deeper than 64 levels"
            )
        try:
            arguments = _without_wrong_details(call.arguments) if last else call.arguments
            return self._answer(call.name, arguments)
        except BadContentError as error:
            raise BadCallError(str(error)) from error

    def _answer(self, name: str, arguments: dict[str, Any]) -> str:
        if name == tools.UPDATE:
            return self._update(arguments)
        if name == tools.DELETE:
            return self._delete(arguments)
        return self._insert(name.removeprefix(tools.INSERT), arguments)

    def _insert(self, kind: str, arguments: dict[str, Any]) -> str:
        if kind not in {kind.name for kind in tools.insertable(self._task, self._draft.memories)}:
            raise BadCallError(f"there is a {kind} already, and only one is kept; update it")
        if "content" not in arguments:
            raise BadCallError("content is missing")
        content = check_content(unquoted(arguments["content"]), self._schema(kind))
        particulars = self._particulars(arguments)
        memory_id = self._draft.new_id()
        self._draft.apply(Edit(memory_id=memory_id, kind=kind, content=content, **particulars))
        return f"Memory {memory_id} inserted."

    def _update(self, arguments: dict[str, Any]) -> str:
        memory = self._memory(arguments)
        if "edits" not in arguments and ("content" in arguments or arguments.keys() == {"id"}):
            raise BadCallError("edits are missing")
        try:
            content = check_content(
                edited(memory.content, unquoted(arguments.get("edits", []))),
                self._schema(memory.kind),
            )
        except BadContentError as error:
            raise BadCallError(f"{error}. {_as_it_is(memory)}") from error
        particulars = self._particulars(arguments)
        self._draft.apply(
            Edit(
                memory_id=memory.id,
                before=memory,
                kind=memory.kind,
                content=content,
                **particulars,
            )
        )
        return f"Memory {memory.id} updated."

    def _delete(self, arguments: dict[str, Any]) -> str:
        memory = self._memory(arguments)
        reason = _reason(arguments.get("reason"))
        self._draft.apply(Edit(memory_id=memory.id, before=memory, kind=memory.kind, reason=reason))
        return f"Memory {memory.id} deleted."

    def _memory(self, arguments: dict[str, Any]) -> Memory:
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

    def _schema(self, kind: str | None) -> dict[str, Any] | None:
        # Memories of other kinds may be there as well; their form is not ours to judge.
        return next((known.schema for known in self._task.kinds if known.name == kind), None)

    def _particulars(self, arguments: dict[str, Any]) -> dict[str, Any]:
        shown, turns = arguments.get("message_ids"), self._task.turns
        return {
            "importance": _importance(arguments.get("importance")),
            "valid_from": _valid_from(arguments.get("valid_from")),
            "message_ids": find_message_ids(shown if isinstance(shown, list) else [shown], turns),
        }


def _without_wrong_details(arguments: dict[str, Any]) -> dict[str, Any]:
    right = dict(arguments)
    for name, read in (("importance", _importance), ("valid_from", _valid_from)):
        try:
            read(arguments.get(name))
        except BadCallError:
            del right[name]
    return right


def _importance(importance: object) -> float | None:
    if importance is None:
        return None
    if isinstance(importance, str):
        with suppress(ValueError):
            importance = float(importance)
    if isinstance(importance, bool) or not isinstance(importance, int | float):
        raise BadCallError("importance must be a number from 0 to 1")
    if not 0 <= importance <= 1:  # neither is NaN
        raise BadCallError(f"importance must be from 0 to 1, not {importance}")
    return float(importance)


def _valid_from(moment: object) -> datetime | None:
    if moment is None or moment == "":
        return None
    whole = moment = str(moment) if type(moment) is int else moment
    if isinstance(moment, str) and _MONTH.fullmatch(moment):
        whole = f"{moment}-01-01"[:10]  # of a year or a month, the first day
    try:
        return parse_time(whole)
    except ValueError as error:
        raise BadCallError(
            f"valid_from must be a date such as 2026-05-03, 2026-05 or 2026, or null, "
            f"not {json.dumps(moment)[:100]}"
        ) from error


def _reason(reason: object) -> str | None:
    if not isinstance(reason, str):
        return None
    return replace_unstorable(reason, "")[:MAX_REASON_CHARACTERS].strip() or None


def _as_it_is(memory: Memory) -> str:
    content = json.dumps(memory.content, ensure_ascii=False)
    if len(content) > _MAX_SHOWN:
        return f"Memory {memory.id} is unchanged"
    return f"Memory {memory.id} is unchanged; its content is {content}"
