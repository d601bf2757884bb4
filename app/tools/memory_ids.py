"""Ids of memories for models, and the URIs of MCP resources.

An id is the path of a memory below the caller's namespace: its labels and its key, joined by
slashes. The URI is the same path percent-encoded. `parse_id` reads both.
"""

import json
from collections.abc import Sequence
from urllib.parse import quote, unquote

from pydantic import ValidationError

from app.store.schemas import ReadItem
from app.tools.errors import MemoryNotFoundError

SCHEME = "memory:///"

TEMPLATE = "memory:///{+id}"


def memory_id(labels: Sequence[str], key: str) -> str:
    """Return the id of a memory."""
    return "/".join(map(_escape, (*labels, key)))


def memory_uri(labels: Sequence[str], key: str) -> str:
    """Return the URI of a memory."""
    return SCHEME + quote(memory_id(labels, key), safe="/%")


def parse_id(text: str) -> ReadItem:
    """Return the namespace and key in an id or URI; raises MemoryNotFoundError."""
    *labels, key = map(unquote, text.removeprefix(SCHEME).split("/"))
    try:
        return ReadItem(namespace=json.dumps(labels, ensure_ascii=False), key=key)
    except ValidationError as error:
        raise MemoryNotFoundError(text) from error


def _escape(part: str) -> str:
    if part in {".", ".."}:
        return part.replace(".", "%2E")  # software that normalizes URIs would resolve them
    return part.replace("%", "%25").replace("/", "%2F")
