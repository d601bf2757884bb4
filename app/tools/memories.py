"""Memories as models write them: their ids and MCP URIs, and their contents with their checks.

An id is the path of a memory below the caller's namespace: its labels and its key, joined by
slashes. The URI is the same path percent-encoded. `parse_id` reads both.
"""

import json
from collections.abc import Sequence
from urllib.parse import quote, unquote

from pydantic import TypeAdapter

from app.conversations.kinds import MEMORY, Kind, schema_for_models
from app.conversations.memories import (
    MAX_CONTENT_BYTES,
    BadContentError,
    MemoryFormat,
    check_content,
    parse_argument,
    read_value,
    write_value,
)
from app.json_values import JsonObject
from app.namespaces import check_labels
from app.store.schemas import Key
from app.tools.tool import MemoryNotFoundError, ToolError, tool_text

SCHEME = "memory:///"

TEMPLATE = "memory:///{+id}"

_KEY: TypeAdapter[str] = TypeAdapter(Key)

_TEXT_MEMBERS = ("content", "text")
"""Members with the text of an item that no manager wrote: LangMem's, and LangGraph's by custom."""

_ROOT_KEYWORDS = frozenset({"$defs", "$schema"})
"""Keywords that stand only at the root of a JSON Schema."""


def memory_id(labels: Sequence[str], key: str) -> str:
    """Return the id of a memory."""
    return "/".join(map(_escape, (*labels, key)))


def memory_uri(labels: Sequence[str], key: str) -> str:
    """Return the URI of a memory."""
    return SCHEME + quote(memory_id(labels, key), safe="/%")


def parse_id(text: str) -> tuple[list[str], str]:
    """Return the labels and key in an id or URI; raises MemoryNotFoundError."""
    *labels, key = map(unquote, text.removeprefix(SCHEME).split("/"))
    try:
        check_labels(labels)
        return labels, _KEY.validate_python(key)
    except ValueError as error:  # pydantic's error is one, too
        raise MemoryNotFoundError(text) from error


def _escape(part: str) -> str:
    if part in {".", ".."}:
        return part.replace(".", "%2E")  # software that normalizes URIs would resolve them
    return part.replace("%", "%25").replace("/", "%2F")


def content_schema(kind: Kind | None) -> tuple[JsonObject, JsonObject]:
    """Return the JSON Schema of `content`, and the `$defs` that it refers to."""
    if kind is None:
        return {"type": "string", "description": tool_text("manage_memory_content")}, {}
    schema = schema_for_models(kind)
    own = {name: part for name, part in schema.items() if name not in _ROOT_KEYWORDS}
    return own, schema.get("$defs", {})


def check_memory_content(content: object, kind: Kind | None) -> str | JsonObject:
    """Return content that can be stored: text, or an object of the kind; raises ToolError."""
    if content is None:
        raise ToolError("Nothing was written: content is missing. Send what is to be remembered.")
    if kind is None:
        return _check_text(content)
    try:
        return check_content(parse_argument(content), kind.schema)
    except BadContentError as error:
        raise ToolError(f"Nothing was written: {error}.") from error


def new_value(kind: Kind | None, content: str | JsonObject) -> JsonObject:
    """Return the value of a new memory: in LangMem's format, or a manager's if it has a kind."""
    return {"content": content} if kind is None else {"kind": kind.name, "content": content}


def replace_content(
    key: str, value: JsonObject, kind: Kind | None, content: str | JsonObject
) -> JsonObject:
    """Return the value of a memory with its content replaced; raises ToolError.

    A memory does not change its kind, and a document is not replaced by a sentence: a model cannot
    overwrite what it does not know about.
    """
    memory_format, kept, _ = read_value(value)
    if memory_format is MemoryFormat.MEMORY:
        if kind is not None and kind.name == kept:
            return new_value(kind, content)
        if kind is None and kept == MEMORY.name:
            return write_value(memory_format, kept, {"content": content})
        raise _wrong_form(key, f"of the kind {kept}", kind)
    for member in _TEXT_MEMBERS if kind is None else ():
        if isinstance(value.get(member), str):
            return value | {member: content}
    if kind is not None and value.keys() == {"content"}:
        return new_value(kind, content)
    raise _wrong_form(key, "a document of its own form", kind)


def _wrong_form(key: str, form: str, kind: Kind | None) -> ToolError:
    written = "text" if kind is None else f"the kind {kind.name}"
    return ToolError(
        f"Nothing was changed: memory {key} is {form}, and this tool writes {written}. "
        "Leave it as it is; what is new can be a memory of its own."
    )


def _check_text(content: object) -> str:
    if not isinstance(content, str):
        shown = json.dumps(content)[:100]
        raise ToolError(f"Nothing was written: content must be text, not {shown}.")
    if not content.strip():
        raise ToolError("Nothing was written: content is empty. Send what is to be remembered.")
    if (size := len(content.encode())) > MAX_CONTENT_BYTES:
        raise ToolError(
            f"Nothing was written: content is {size:,} bytes; at most {MAX_CONTENT_BYTES:,} are "
            "kept."
        )
    return content
