"""Names of memories: short ids for models, and the URIs of resources.

An id is the path of a memory below the connection's namespace, its labels and its key joined by
slashes; the URI is the same path percent-encoded. One way of reading takes both.
"""

import json
from collections.abc import Sequence
from urllib.parse import quote, unquote

from pydantic import ValidationError

from app.mcp.errors import MemoryNotFoundError
from app.store.schemas import ReadItem

SCHEME = "memory:///"

TEMPLATE = "memory:///{+id}"


def memory_id(labels: Sequence[str], key: str) -> str:
    """Return the id of a memory."""
    return "/".join(map(_escaped, (*labels, key)))


def memory_uri(labels: Sequence[str], key: str) -> str:
    """Return the URI of a memory."""
    return SCHEME + quote(memory_id(labels, key), safe="/%")


def read_address(text: str) -> ReadItem:
    """Return the namespace and key in an id or URI; raises MemoryNotFoundError."""
    *labels, key = map(unquote, text.removeprefix(SCHEME).split("/"))
    try:
        return ReadItem(namespace=json.dumps(labels, ensure_ascii=False), key=key)
    except ValidationError as error:
        raise MemoryNotFoundError(text) from error


def _escaped(part: str) -> str:
    if part in {".", ".."}:
        return part.replace(".", "%2E")  # a path's steps, to those who tidy URIs up
    return part.replace("%", "%25").replace("/", "%2F")
