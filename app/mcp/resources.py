"""Memories as resources: listed newest first, read by their URI."""

import json
import re

from mcp import types

from app.auth.access import Access
from app.db.pages import TOOL_BYTES
from app.errors import InvalidRequestError
from app.mcp.addresses import TEMPLATE, memory_uri, read_address
from app.mcp.caller import Caller
from app.mcp.errors import MemoryNotFoundError
from app.search.hits import Hit
from app.search.plan import SearchQuery
from app.search.service import SearchService
from app.store.service import ItemService

PAGE = 50

_JSON = "application/json"
_CURSOR = re.compile("([0-9]{1,4})[.](.*)")
_TITLE_CHARACTERS = 80

TEMPLATES = (
    types.ResourceTemplate(
        name="memory",
        title="A memory",
        uri_template=TEMPLATE,
        description="The value of a memory as JSON. The id is what search_memories returns: the "
        "labels of the namespace and the key, joined by slashes.",
        mime_type=_JSON,
    ),
)


async def list_page(caller: Caller, cursor: str | None) -> types.ListResourcesResult:
    """Return a page of what may be read, the newest first in each namespace that is granted."""
    namespaces = caller.readable()
    number, inner = _read_cursor(cursor)
    if number >= len(namespaces):
        return types.ListResourcesResult(resources=[])
    service, access = SearchService.build(caller.resources), caller.confined
    query = SearchQuery(namespace=namespaces[number], limit=PAGE, cursor=inner)
    async with caller.resources.database.connection(access.root) as connection:
        # Clients list resources by themselves: that is no use of them, and restarts no lifetime.
        found = await service.find(
            connection, service.plan(access, query), None, max_bytes=TOOL_BYTES
        )
    following = f"{number}.{found.next_cursor}" if found.next_cursor else f"{number + 1}."
    is_last = found.next_cursor is None and number + 1 >= len(namespaces)
    return types.ListResourcesResult(
        resources=[_resource(hit, access) for hit in found.hits],
        next_cursor=None if is_last else following,
    )


async def read(caller: Caller, uri: str) -> types.ReadResourceResult:
    """Return a memory's value as JSON; raises MemoryNotFoundError."""
    row = await ItemService.build(caller.resources).get(caller.confined, read_address(uri))
    if row is None:
        raise MemoryNotFoundError(uri)
    contents = types.TextResourceContents(uri=uri, mime_type=_JSON, text=row["value"])
    return types.ReadResourceResult(contents=[contents])


def _read_cursor(cursor: str | None) -> tuple[int, str | None]:
    if cursor is None:
        return 0, None
    found = _CURSOR.fullmatch(cursor)
    if found is None:
        raise InvalidRequestError("cursor cannot be read; send nextCursor as it came.")
    return int(found[1]), found[2] or None


def _resource(hit: Hit, access: Access) -> types.Resource:
    row = hit.row
    labels = access.relative(row["namespace"])
    return types.Resource(
        uri=memory_uri(labels, row["key"]),
        name=row["key"],
        title=_title(row["value"]),
        mime_type=_JSON,
        size=len(row["value"].encode()),
        annotations=types.Annotations(
            last_modified=row["updated_at"].isoformat(), priority=row["importance"]
        ),
    )


def _title(value: str) -> str:
    """Return how a value begins: its text, or, where it is none, its JSON."""
    text = json.loads(value)
    while isinstance(text, dict):
        text = text.get("content")
    shown = text if isinstance(text, str) and text else value
    if len(shown) <= _TITLE_CHARACTERS:
        return shown
    return shown[: _TITLE_CHARACTERS - 1] + "…"
