"""What a model writes as the content of a memory, and the value that holds it."""

import json
from typing import Any

from app.conversations.content import MAX_BYTES, BadContentError, check_content, unquoted
from app.conversations.kinds import MEMORY
from app.conversations.types import Kind, MemoryFormat
from app.conversations.value_format import read_value, write_value
from app.tools.base import ToolError

_TEXTS = ("content", "text")
"""Where items that no manager wrote keep their text: LangMem's, and LangGraph's by custom."""

_KEYWORDS_OF_THE_WHOLE = frozenset({"$defs", "$schema"})


def content_schema(kind: Kind | None, *, needed: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the JSON Schema of `content`, and what it refers to below `#/$defs`."""
    if kind is None:
        text: dict[str, Any] = {
            "type": "string",
            "description": "What to remember, so that it makes sense to one who was not there.",
        }
        return text if needed else text | {"type": ["string", "null"], "default": None}, {}
    own = {n: part for n, part in kind.schema.items() if n not in _KEYWORDS_OF_THE_WHOLE}
    schema = own if needed else {"anyOf": [own, {"type": "null"}], "default": None}
    return schema, kind.schema.get("$defs", {})


def content_of(sent: object, kind: Kind | None) -> Any:
    """Return a content that can be kept: text, or an object of the kind; raises ToolError."""
    if sent is None:
        raise ToolError("Nothing was written: content is missing. Send what is to be remembered.")
    if kind is None:
        return _text(sent)
    try:
        return check_content(unquoted(sent), kind.schema)
    except BadContentError as error:
        raise ToolError(f"Nothing was written: {error}.") from error


def value_of(kind: Kind | None, content: Any) -> dict[str, Any]:
    """Return the value of a new memory: LangMem's where there is no kind, else a manager's."""
    return {"content": content} if kind is None else {"kind": kind.name, "content": content}


def next_value(key: str, value: dict[str, Any], kind: Kind | None, content: Any) -> dict[str, Any]:
    """Return the value of a memory with another content; raises ToolError.

    A memory of one kind is not made one of another, nor a document a mere sentence: what a model
    does not know of, it cannot overwrite.
    """
    shape, kept, _ = read_value(value)
    if shape is MemoryFormat.MEMORY:
        if kind is not None and kind.name == kept:
            return value_of(kind, content)
        if kind is None and kept == MEMORY.name:
            return write_value(shape, kept, {"content": content})
        raise _of_another_form(key, f"of the kind {kept}", kind)
    for member in _TEXTS if kind is None else ():
        if isinstance(value.get(member), str):
            return value | {member: content}
    if kind is not None and value.keys() == {"content"}:
        return value_of(kind, content)
    raise _of_another_form(key, "a document of its own form", kind)


def _of_another_form(key: str, form: str, kind: Kind | None) -> ToolError:
    wanted = "text" if kind is None else f"the kind {kind.name}"
    return ToolError(
        f"Nothing was changed: memory {key} is {form}, and this tool writes {wanted}. "
        "Leave it as it is; what is new can be a memory of its own."
    )


def _text(sent: object) -> str:
    if not isinstance(sent, str):
        raise ToolError(f"Nothing was written: content must be text, not {_shown(sent)}.")
    if not sent.strip():
        raise ToolError("Nothing was written: content is empty. Send what is to be remembered.")
    if (size := len(sent.encode())) > MAX_BYTES:
        raise ToolError(
            f"Nothing was written: content is {size:,} bytes; at most {MAX_BYTES:,} are kept."
        )
    return sent


def _shown(sent: object) -> str:
    return json.dumps(sent)[:100]
