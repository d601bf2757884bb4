"""The tools that models record memories with."""

import json
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

from app.conversations.types import Kind, LLMTask, Memory
from app.extraction.instructions import tool_text
from app.providers.llm.base import Tool

INSERT = "insert_"
UPDATE = "update_memory"
DELETE = "delete_memory"
NO_CHANGE = "no_change"
DONE = "done"

IDLE = frozenset({NO_CHANGE, DONE})
"""Tools that change nothing."""


def offered_tools(
    task: LLMTask, memories: Collection[Memory], *, first_step: bool
) -> tuple[Tool, ...]:
    """Return the tools that the task permits, with the memories that there are by now."""
    tools = [_insert(kind, task) for kind in insertable(task, memories)]
    ids = [memory.id for memory in memories]
    if task.rights.updates and ids:
        tools.append(_update(task, memories))
    if task.rights.deletes and ids:
        tools.append(_delete(ids))
    tools.append(_tool(NO_CHANGE, {"reason": _text("reason")}))
    if not first_step:
        tools.append(_tool(DONE, {}))
    return tuple(tools)


def insertable(task: LLMTask, memories: Iterable[Memory]) -> list[Kind]:
    """Return the kinds that may be added to: of a single one, only the first memory, and always.

    That is how a profile comes to be where inserts are not permitted.
    """
    present = {memory.kind for memory in memories}
    return [
        kind
        for kind in task.kinds
        if (kind.name not in present if kind.singleton else task.rights.inserts)
    ]


def _insert(kind: Kind, task: LLMTask) -> Tool:
    text = tool_text(
        "insert_single" if kind.singleton else "insert",
        kind=kind.name,
        description=kind.description,
    )
    # References start at the root of the whole: `#/$defs/…`, and nowhere else.
    own = {name: part for name, part in kind.schema.items() if name not in {"$defs", "$schema"}}
    content = {"description": tool_text("content"), **own}
    parameters = _object({"content": content, **_particulars(task)}, ["content", "importance"])
    if "$defs" in kind.schema:
        parameters["$defs"] = kind.schema["$defs"]
    return Tool(INSERT + kind.name, text, parameters)


def _update(task: LLMTask, memories: Collection[Memory]) -> Tool:
    edit = _object(
        {
            "op": {"type": "string", "enum": ["add", "replace", "remove"]},
            "path": _text("path"),
            "value": {"description": tool_text("value")},
        },
        ["op", "path"],
    )
    edits = {"type": "array", "description": tool_text("edits"), "items": edit}
    ids = _id([memory.id for memory in memories])
    tool = _tool(UPDATE, {"id": ids, "edits": edits, **_particulars(task)}, ["id", "edits"])
    return replace(tool, description="\n\n".join([tool.description, *_shown(task, memories)]))


def _shown(task: LLMTask, memories: Collection[Memory]) -> list[str]:
    """Return what to say of the kinds that no insert tool tells about."""
    present = {memory.kind for memory in memories}
    told = [kind.name for kind in insertable(task, memories)]
    return [
        tool_text(
            "update_single" if kind.singleton else "update_kind",
            kind=kind.name,
            schema=json.dumps(kind.schema, ensure_ascii=False),
            description=kind.description,
        )
        for kind in task.kinds
        if kind.name in present and kind.name not in told
    ]


def _delete(ids: list[str]) -> Tool:
    return _tool(DELETE, {"id": _id(ids), "reason": _text("reason")})


def _particulars(task: LLMTask) -> dict[str, Any]:
    particulars: dict[str, Any] = {
        "importance": {
            "type": "number",
            "description": tool_text("importance"),
            "minimum": 0,
            "maximum": 1,
        },
        "valid_from": {"type": ["string", "null"], "description": tool_text("valid_from")},
    }
    if task.turns:
        particulars["message_ids"] = {
            "type": "array",
            "description": tool_text("message_ids"),
            "items": {"type": "string"},
        }
    return particulars


def _tool(name: str, properties: dict[str, Any], required: list[str] | None = None) -> Tool:
    return Tool(name, tool_text(name), _object(properties, required or list(properties)))


def _object(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required}


def _text(name: str) -> dict[str, Any]:
    return {"type": "string", "description": tool_text(name)}


def _id(ids: list[str]) -> dict[str, Any]:
    return {**_text("id"), "enum": ids}
