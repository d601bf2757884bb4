"""New memories of agents: each is stored once, however it is worded in form."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Self
from uuid import UUID, uuid4

from app.auth.access import Access, Verb
from app.changes.duplicates import LEAST_COSINE, fingerprint, is_duplicate, to_memory
from app.conversations.kinds import MEMORY
from app.conversations.memories import read_value
from app.db.database import Database
from app.db.pages import TOOL_BYTES
from app.http.headers import ABSENT, PreconditionFailedError
from app.json_values import JsonObject
from app.namespaces import Labels
from app.resources import Resources
from app.search.hits import Hit
from app.search.plan import SearchQuery
from app.search.service import SearchService
from app.store.service import ItemService
from app.store.types import Address, Item, ItemMetadata, Put, Ttl
from app.store.writer import ItemWriter

_NEAREST = 10
"""Items to compare; one that says the same shares all words, so it ranks first."""

_SEARCHED_CHARACTERS = 2_000


@dataclass(frozen=True, slots=True)
class NewMemory:
    """A memory to store: its value, metadata, and lifetime."""

    value: JsonObject
    metadata: ItemMetadata
    ttl: timedelta | Ttl = Ttl.DEFAULT


@dataclass(frozen=True, slots=True)
class StoredMemory:
    """The key of the memory that says it now, and that of a similar one, if it is new."""

    key: str
    is_new: bool = True
    similar: str | None = None


class NewMemories:
    """Stores memories unless their namespace has one that says the same."""

    def __init__(
        self, database: Database, search: SearchService, items: ItemService, writer: ItemWriter
    ) -> None:
        self._database = database
        self._search = search
        self._items = items
        self._writer = writer

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make it from a process's resources."""
        search, items = SearchService.build(resources), ItemService.build(resources)
        return cls(resources.database, search, items, ItemWriter.build(resources))

    async def store(self, access: Access, labels: Labels, new: NewMemory) -> StoredMemory:
        """Store a memory under a new key, or return the one that says the same already.

        A caller without `read` does not learn which memories exist: its memory is always stored.
        Concurrent calls with the same content store it once.
        """
        namespace = access.authorize(labels, Verb.WRITE)
        if not access.allows(labels, Verb.READ):
            return await self._put(access, Address(namespace, str(uuid4())), new)
        near = await self._find_near(access, labels, new.value)
        for item in (hit.item for hit in near):
            if _says_the_same(new.value, item):
                return StoredMemory(item.address.key, is_new=False)
        similar = _find_similar(near)
        same = fingerprint(new.value)
        address = Address(namespace, str(UUID(same[:32])))
        try:
            return await self._put(access, address, new, similar)
        except PreconditionFailedError:
            there = await self._items.get(access, address)
        if there is not None and fingerprint(there.parse_value()) == same:
            return StoredMemory(address.key, is_new=False)
        # The text of the memory with this key has been changed since.
        return await self._put(access, Address(namespace, str(uuid4())), new, similar)

    async def _put(
        self, access: Access, address: Address, new: NewMemory, similar: str | None = None
    ) -> StoredMemory:
        put = Put(address, new.value, new.metadata, ttl=new.ttl, precondition=ABSENT)
        await self._writer.put(access, put)
        return StoredMemory(address.key, similar=similar)

    async def _find_near(self, access: Access, labels: Labels, value: JsonObject) -> list[Hit]:
        """Return the items of the namespace itself that are most like a value."""
        # As it will be embedded, so that similarities compare like with like.
        text = json.dumps(value, sort_keys=True, ensure_ascii=False)[:_SEARCHED_CHARACTERS]
        query = SearchQuery(
            namespace=labels, with_children=False, text=text, limit=_NEAREST, explain=True
        )
        plan = self._search.plan(access, query)
        [vector] = await self._search.embed_if_possible([plan])
        # It counts as no use of the memories, and restarts no lifetime.
        async with self._database.connection(access.root) as connection:
            page = await self._search.find(connection, plan, vector, max_bytes=TOOL_BYTES)
        return page.hits


def _says_the_same(value: JsonObject, item: Item) -> bool:
    """Return whether an item has the content of a value; a plain text has no kind or `memory`."""
    _, kind, content = read_value(value)
    memory = to_memory(item, item.address.key)
    return any(is_duplicate(one, content, memory) for one in {kind, kind or MEMORY.name})


def _find_similar(near: Iterable[Hit]) -> str | None:
    """Return the key of the first item whose text has almost the same vector."""
    for hit in near:
        similarity = None if hit.explanation is None else hit.explanation.similarity
        if similarity is not None and similarity >= LEAST_COSINE:
            return hit.item.address.key
    return None
