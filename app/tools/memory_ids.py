"""Ids of memories for models, and the URIs of MCP resources.

An id is the path of a memory below the caller's namespace: its labels and its key, joined by
slashes. The URI is the same path percent-encoded. `parse_id` reads both.
"""

from collections.abc import Sequence
from urllib.parse import quote, unquote

from pydantic import TypeAdapter

from app.namespaces import check_labels
from app.store.schemas import Key
from app.tools.errors import MemoryNotFoundError

SCHEME = "memory:///"

TEMPLATE = "memory:///{+id}"

_KEY: TypeAdapter[str] = TypeAdapter(Key)


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
