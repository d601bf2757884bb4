"""Memories as MCP resources: listed newest first, read by URI."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Self

from mcp import types

from app.auth.access import Access, Verb
from app.db.database import Database
from app.db.pages import TOOL_BYTES
from app.errors import InvalidRequestError
from app.resources import Resources
from app.search.hits import Hit, SearchPage
from app.search.plan import SearchQuery
from app.search.service import SearchService
from app.store.service import ItemService
from app.store.types import Address
from app.tools.budget import MAX_RESULT_CHARACTERS, count_fitting, shorten
from app.tools.memories import TEMPLATE, memory_uri, parse_id
from app.tools.tool import Caller, MemoryNotFoundError

PAGE = 50

_JSON = "application/json"
_TEXT = "text/plain"
_CURSOR = re.compile("([0-9]{1,4})[.](.*)")
_TITLE_CHARACTERS = 80

_PART = re.compile("(.+)[?]offset=([0-9]{1,9})")
"""A URI that asks for a part of a long value."""

_TEMPLATE = types.ResourceTemplate(
    name="memory",
    title="A memory",
    uri_template=TEMPLATE + "{?offset}",
    description="The value of a memory as JSON. The id is what search_memories returns: the "
    "labels of the namespace and the key, joined by slashes. Of a long value, the texts are "
    f"shortened; with offset, its JSON is read in parts of {MAX_RESULT_CHARACTERS:,} characters.",
    mime_type=_JSON,
)


class MemoryResources:
    """Lists and reads memories for MCP clients."""

    def __init__(self, search: SearchService, items: ItemService, database: Database) -> None:
        self._search = search
        self._items = items
        self._database = database

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make it from a process's resources."""
        return cls(SearchService.build(resources), ItemService.build(resources), resources.database)

    async def list_page(self, caller: Caller, cursor: str | None) -> types.ListResourcesResult:
        """Return a page of the readable memories, newest first in each granted namespace."""
        namespaces = caller.readable_prefixes()
        number, inner = _read_cursor(cursor)
        if number >= len(namespaces):
            return types.ListResourcesResult(resources=[])
        access = caller.confined
        query = SearchQuery(namespace=namespaces[number], limit=PAGE, cursor=inner)
        page = await self._list(access, query)
        fitting = count_fitting(len(_resource(hit, access).model_dump_json()) for hit in page.hits)
        if fitting < len(page.hits):  # names are long: a shorter page has another cursor
            page = await self._list(access, replace(query, limit=fitting))
        following = f"{number}.{page.next_cursor}" if page.next_cursor else f"{number + 1}."
        is_last = page.next_cursor is None and number + 1 >= len(namespaces)
        return types.ListResourcesResult(
            resources=[_resource(hit, access) for hit in page.hits],
            next_cursor=None if is_last else following,
        )

    async def _list(self, access: Access, query: SearchQuery) -> SearchPage:
        plan = self._search.plan(access, query)
        async with self._database.connection(access.root) as connection:
            # Clients list resources by themselves, so it is no use and restarts no lifetime.
            return await self._search.find(connection, plan, None, max_bytes=TOOL_BYTES)

    def templates(self) -> types.ListResourceTemplatesResult:
        """Return the template of a memory's URI."""
        return types.ListResourceTemplatesResult(resource_templates=[_TEMPLATE])

    async def read(self, caller: Caller, uri: str) -> types.ReadResourceResult:
        """Return a memory's value as JSON, or a part of it; raises MemoryNotFoundError."""
        part = _PART.fullmatch(uri)
        labels, key = parse_id(part[1] if part else uri)
        address = Address(caller.confined.authorize(labels, Verb.READ), key)
        item = await self._items.get(caller.confined, address)
        if item is None:
            raise MemoryNotFoundError(uri)
        shown = _show_part(uri, item.value, int(part[2])) if part else _show(uri, item.value)
        return types.ReadResourceResult(contents=list(shown))


def _show(uri: str, value: str) -> Iterator[types.TextResourceContents]:
    """Yield a value; one that is too long is shortened, and followed by a note."""
    if len(value) <= MAX_RESULT_CHARACTERS:
        yield types.TextResourceContents(uri=uri, mime_type=_JSON, text=value)
        return
    text = json.dumps(shorten(json.loads(value), MAX_RESULT_CHARACTERS), ensure_ascii=False)
    yield types.TextResourceContents(uri=uri, mime_type=_JSON, text=text)
    note = (
        f"This memory has {len(value):,} characters and was shortened, as its texts say. "
        f"Read {uri}?offset=0 for the first part of the whole, as JSON."
    )
    yield types.TextResourceContents(uri=uri, mime_type=_TEXT, text=note)


def _show_part(uri: str, value: str, offset: int) -> Iterator[types.TextResourceContents]:
    """Yield a part of the JSON of a value, and a note that names the next part."""
    end = offset + MAX_RESULT_CHARACTERS
    yield types.TextResourceContents(uri=uri, mime_type=_TEXT, text=value[offset:end])
    if end < len(value):
        following = f"{uri.rpartition('?')[0]}?offset={end}"
        note = f"{len(value) - end:,} more characters follow: read {following}."
        yield types.TextResourceContents(uri=uri, mime_type=_TEXT, text=note)


def _read_cursor(cursor: str | None) -> tuple[int, str | None]:
    if cursor is None:
        return 0, None
    found = _CURSOR.fullmatch(cursor)
    if found is None:
        raise InvalidRequestError("cursor cannot be read; send nextCursor as it came.")
    return int(found[1]), found[2] or None


def _resource(hit: Hit, access: Access) -> types.Resource:
    item = hit.item
    labels, key = access.relative(item.address.namespace), item.address.key
    return types.Resource(
        uri=memory_uri(labels, key),
        name=key,
        title=_title(item.value),
        mime_type=_JSON,
        size=item.size,
        annotations=types.Annotations(
            last_modified=item.updated_at.isoformat(), priority=item.metadata.importance
        ),
    )


def _title(value: str) -> str:
    """Return the beginning of a value's text, or of its JSON if it has no text."""
    text = json.loads(value)
    while isinstance(text, dict):
        text = text.get("content")
    shown = text if isinstance(text, str) and text else value
    if len(shown) <= _TITLE_CHARACTERS:
        return shown
    return shown[: _TITLE_CHARACTERS - 1] + "…"
