"""A model that answers from a script, and tasks to give it."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal

from app.conversations.kinds import MEMORY, Kind
from app.conversations.memories import Edit, LLMTask, Memory, Rights
from app.conversations.messages import Turn
from app.partial_dates import PartialDate
from app.providers.llm import Completion, Request, TokenUsage, ToolCall

Arguments = dict[str, Any]
Stop = Literal["end", "tools", "length", "refusal"]

ALL_ROOTS = Rights(inserts=True, updates=True, deletes=True)
NOW = datetime(2026, 5, 5, 9, 30, tzinfo=UTC)


class ScriptedModel:
    """An `Ask`: gives its replies in order and keeps what it was asked."""

    def __init__(self, *replies: Completion) -> None:
        self._replies = list(replies)
        self.requests: list[Request] = []
        self.purposes: list[str] = []

    async def __call__(self, request: Request, purpose: str) -> Completion:
        self.requests.append(request)
        self.purposes.append(purpose)
        return self._replies.pop(0)

    @property
    def results(self) -> list[tuple[bool, str]]:
        """Whether each call of the last request's results failed, and what was said of it."""
        return [(r.is_error, r.content) for r in self.requests[-1].messages[-1].results]

    @property
    def tool_names(self) -> list[str]:
        return [tool.name for tool in self.requests[-1].tools]


def says(text: str, stop: Stop = "end") -> Completion:
    return Completion(text, (), stop, TokenUsage(1, 1, 0, None), "scripted")


def calls(*wanted: tuple[str, Arguments | str], text: str = "", stop: Stop = "tools") -> Completion:
    """Return a reply with calls; arguments given as a string are what could not be read."""
    return Completion(
        text,
        tuple(
            ToolCall(f"call_{number}", name, arguments, json.dumps(arguments))
            if isinstance(arguments, dict)
            else ToolCall(f"call_{number}", name, None, arguments)
            for number, (name, arguments) in enumerate(wanted, start=1)
        ),
        stop,
        TokenUsage(1, 1, 0, None),
        "scripted",
    )


NOTHING = calls(("no_change", {"reason": "small talk"}))
DONE = calls(("done", {}))


def insert(text: str, **particulars: Any) -> tuple[str, Arguments]:
    return "insert_memory", {"content": {"content": text}, "importance": 0.5, **particulars}


def update(memory_id: str, text: str, **particulars: Any) -> tuple[str, Arguments]:
    edit = {"op": "replace", "path": "/content", "value": text}
    return "update_memory", {"id": memory_id, "edits": [edit], **particulars}


def delete(memory_id: str, reason: str = "wrong") -> tuple[str, Arguments]:
    return "delete_memory", {"id": memory_id, "reason": reason}


def memory(memory_id: str, text: str, **details: Any) -> Memory:
    return Memory(memory_id, "memory", {"content": text}, **details)


def task(
    *existing: Memory,
    kinds: Sequence[Kind] = (MEMORY,),
    rights: Rights = ALL_ROOTS,
    turns: Sequence[Turn] = (Turn("a", "user", "I moved to Lisbon."),),
    **others: Any,
) -> LLMTask:
    return LLMTask(turns, existing, kinds, rights, **{"now": NOW, **others})


SOME = Memory("", None, {})
"""Stands for whatever was there before an edit."""


def insert_edit(
    memory_id: str,
    kind: str,
    content: dict[str, Any],
    importance: float | None = None,
    valid_from: PartialDate | None = None,
    message_ids: tuple[str, ...] = (),
) -> Edit:
    return Edit(
        memory_id=memory_id,
        kind=kind,
        content=content,
        importance=importance,
        valid_from=valid_from,
        message_ids=message_ids,
    )


def update_edit(
    memory_id: str,
    kind: str | None,
    content: dict[str, Any],
    importance: float | None = None,
    valid_from: PartialDate | None = None,
    message_ids: tuple[str, ...] = (),
) -> Edit:
    edit = insert_edit(memory_id, "", content, importance, valid_from, message_ids)
    return replace(edit, before=SOME, kind=kind)


def delete_edit(memory_id: str, reason: str | None = None) -> Edit:
    return Edit(memory_id=memory_id, before=SOME, reason=reason)


def outlines(edits: Iterable[Edit]) -> tuple[Edit, ...]:
    """Return edits as the functions above make them."""
    return tuple(
        replace(
            edit, before=SOME if edit.before else None, kind=edit.kind if edit.content else None
        )
        for edit in edits
    )
