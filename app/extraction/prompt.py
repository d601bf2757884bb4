"""The prompt of an extraction: the system text and the tools that record memories."""

import json
from collections.abc import Collection, Iterable
from dataclasses import replace

from app.conversations.kinds import MEMORY, Kind, schema_for_models
from app.conversations.memories import OPERATIONS, LLMTask, Memory
from app.conversations.prompt_text import CONVERSATION_TAGS, Templates
from app.json_values import JsonObject
from app.providers.llm import Tool

INSERT = "insert_"
UPDATE = "update_memory"
DELETE = "delete_memory"
NO_CHANGE = "no_change"
DONE = "done"

IDLE = frozenset({NO_CHANGE, DONE})
"""Tools that edit nothing."""

TEMPLATES = Templates("app.extraction")

PROMPT_VERSION: str = TEMPLATES.version
"""Changes with every template; stored with the memories that a model wrote."""


def describe(name: str, **values: str) -> str:
    """Return the description of a tool or an argument: a section of `tools.md`."""
    return TEMPLATES.fill_section("tools", name, **values).strip()


def build_system_text(task: LLMTask) -> str:
    """Return the part of the prompt that is the same for all conversations of a manager.

    Parts that cannot apply to the task are left out.
    """
    parts = [TEMPLATES.fill("extract" if task.turns else "tidy")]
    if task.rights.inserts or task.rights.updates or any(kind.singleton for kind in task.kinds):
        parts.append(_text_on_writing(task))
    if task.existing or task.max_steps > 1:
        parts.extend(_texts_on_existing(task))
    if task.turns and task.rights.inserts and MEMORY in task.kinds:
        parts.append(_example(task))
    if task.instructions and task.instructions.strip():
        instructions = CONVERSATION_TAGS.escape(task.instructions.strip())
        parts.append(TEMPLATES.fill("instructions", instructions=instructions))
    return "\n\n".join(parts)


def _text_on_writing(task: LLMTask) -> str:
    singletons = sum(kind.singleton for kind in task.kinds)
    chosen = {
        "several_kinds": len(task.kinds) > 1,
        "one_fact": singletons < len(task.kinds),
        "single_document": singletons > 0,
        "rules": True,
        "messages": bool(task.turns),
    }
    rules = [TEMPLATES.fill_section("writing", name) for name, applies in chosen.items() if applies]
    values = TEMPLATES.fill_section("writing", "values")
    if task.turns:
        values += " " + TEMPLATES.fill_section("writing", "message_time")
    return "\n\n".join([TEMPLATES.fill_section("writing", "title"), "\n".join(rules), values])


def _texts_on_existing(task: LLMTask) -> list[str]:
    if task.rights.updates:
        rules = [*(["extract"] if task.turns else []), "always"]
        sections = [TEMPLATES.fill_section("updates", name) for name in rules]
        texts = [TEMPLATES.fill_section("updates", "shown"), "\n".join(sections)]
    else:
        texts = [TEMPLATES.fill("fixed")]
    if task.rights.deletes:
        texts.append(TEMPLATES.fill_section("deletes", "extract" if task.turns else "tidy"))
    return texts


def _example(task: LLMTask) -> str:
    """Return messages and the calls that record them, with a memory to update if possible."""
    updates = bool(task.existing) and task.rights.updates
    return TEMPLATES.fill_section(
        "example",
        "messages",
        memories=TEMPLATES.fill_section("example", "memories") + "\n" if updates else "",
        first_call=TEMPLATES.fill_section("example", "update" if updates else "insert"),
    )


def build_tools(
    task: LLMTask, memories: Collection[Memory], *, first_step: bool
) -> tuple[Tool, ...]:
    """Return the tools that the task permits, given the memories in their current state."""
    tools = [_insert(kind, task) for kind in find_insertable(task, memories)]
    ids = [memory.id for memory in memories]
    if task.rights.updates and ids:
        tools.append(_update(task, memories))
    if task.rights.deletes and ids:
        tools.append(_delete(ids))
    tools.append(_tool(NO_CHANGE, {"reason": _text("reason")}))
    if not first_step:
        # An object without members is refused by Gemini.
        tools.append(_tool(DONE, {"changed": _text("changed")}, []))
    return tuple(tools)


def find_insertable(task: LLMTask, memories: Iterable[Memory]) -> list[Kind]:
    """Return the kinds that may get a new memory.

    A singleton may get its first memory even if inserts are not permitted, and no second one.
    """
    present = {memory.kind for memory in memories}
    return [
        kind
        for kind in task.kinds
        if (kind.name not in present if kind.singleton else task.rights.inserts)
    ]


def _insert(kind: Kind, task: LLMTask) -> Tool:
    text = describe(
        "insert_single" if kind.singleton else "insert",
        kind=kind.name,
        description=kind.description,
    )
    # References start at the root of the whole: `#/$defs/…`, and nowhere else.
    schema = schema_for_models(kind)
    own = {name: part for name, part in schema.items() if name not in {"$defs", "$schema"}}
    content = {"description": describe("content"), **own}
    parameters = _object(
        {"content": content, **_detail_properties(task)}, ["content", "importance"]
    )
    if "$defs" in schema:
        parameters["$defs"] = schema["$defs"]
    return Tool(INSERT + kind.name, text, parameters)


def _update(task: LLMTask, memories: Collection[Memory]) -> Tool:
    edit = _object(
        {
            "op": {"type": "string", "enum": list(OPERATIONS)},
            "path": _text("path"),
            "value": _text("value"),
        },
        ["op", "path"],
    )
    edits = {"type": "array", "description": describe("edits"), "items": edit}
    ids = _id([memory.id for memory in memories])
    tool = _tool(UPDATE, {"id": ids, "edits": edits, **_detail_properties(task)}, ["id"])
    return replace(
        tool, description="\n\n".join([tool.description, *_describe_kinds(task, memories)])
    )


def _describe_kinds(task: LLMTask, memories: Collection[Memory]) -> list[str]:
    """Return descriptions of the kinds that no insert tool describes."""
    present = {memory.kind for memory in memories}
    described = [kind.name for kind in find_insertable(task, memories)]
    return [
        describe(
            "update_single" if kind.singleton else "update_kind",
            kind=kind.name,
            schema=json.dumps(kind.schema, ensure_ascii=False),
            description=kind.description,
        )
        for kind in task.kinds
        if kind.name in present and kind.name not in described
    ]


def _delete(ids: list[str]) -> Tool:
    covering = {**_text("covered_by"), "enum": ids}
    properties = {"id": _id(ids), "reason": _text("reason"), "covered_by": covering}
    return _tool(DELETE, properties, ["id", "reason"])


def _detail_properties(task: LLMTask) -> JsonObject:
    properties: JsonObject = {
        "importance": {
            "type": "number",
            "description": describe("importance"),
            "minimum": 0,
            "maximum": 1,
        },
        "valid_from": _text("valid_from"),
    }
    if task.with_questions:
        properties["questions"] = {
            "type": "array",
            "description": describe("questions"),
            "items": {"type": "string"},
        }
    if task.turns:
        properties["message_ids"] = _texts("message_ids")
    else:
        properties["memory_ids"] = _texts("memory_ids")
    return properties


def _tool(name: str, properties: JsonObject, required: list[str] | None = None) -> Tool:
    names = list(properties) if required is None else required
    return Tool(name, describe(name), _object(properties, names))


def _object(properties: JsonObject, required: list[str]) -> JsonObject:
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _text(name: str) -> JsonObject:
    return {"type": "string", "description": describe(name)}


def _texts(name: str) -> JsonObject:
    return {"type": "array", "description": describe(name), "items": {"type": "string"}}


def _id(ids: list[str]) -> JsonObject:
    return {**_text("id"), "enum": ids}
