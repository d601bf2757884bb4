"""Finding, among all that a namespace holds, what says the same as a memory to be inserted."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Self

from app.auth.access import Access
from app.changes.duplicates import is_duplicate
from app.conversations.types import Edit, Memory
from app.conversations.value_format import as_existing
from app.db.database import Connection
from app.namespaces import StoredNamespace
from app.providers.embeddings.base import Vector
from app.resources import Resources
from app.search.plan import SearchPlan, SearchQuery
from app.search.service import SearchService
from app.store.types import Address

_NEAREST = 10
"""Items that are compared: what repeats an insert shares all its words, and comes first."""

_SEARCHED_CHARACTERS = 2_000


class DuplicateFoundError(Exception):
    """Inserts repeat memories that were not known; nothing was written."""

    def __init__(self, memories: Sequence[Memory]) -> None:
        super().__init__(f"{len(memories)} memories are there already")
        self.memories = tuple(memories)


@dataclass(frozen=True, slots=True)
class DuplicateQuery:
    """An insert, and the search for what it repeats."""

    insert: Edit
    plan: SearchPlan
    vector: Vector | None


class DuplicateFinder:
    """Looks for what inserts repeat, however it was written, unless it is not indexed."""

    def __init__(self, search: SearchService) -> None:
        self._search = search

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make it from a process's resources."""
        return cls(SearchService.build(resources))

    async def prepare(self, access: Access, edits: Sequence[Edit]) -> list[DuplicateQuery]:
        """Embed what the inserts among some edits say; no connection is held meanwhile."""
        inserts = [edit for edit in edits if edit.action == "insert"]
        searches = [self._prepared(access, insert) for insert in inserts]
        vectors = await self._search.embed(searches)
        return [DuplicateQuery(*one) for one in zip(inserts, searches, vectors, strict=True)]

    async def find(
        self,
        connection: Connection,
        sought: Sequence[DuplicateQuery],
        *,
        leaving_out: Collection[Address],
    ) -> list[Memory]:
        """Return the memories that inserts repeat, as the connection's transaction sees them."""
        found: dict[Address, Memory] = {}
        for one in sought:
            hits = (await self._search.find(connection, one.plan, one.vector)).hits
            for item in (hit.item for hit in hits):
                address = item.address
                memory = as_existing(item, "/".join(address))
                if address not in leaving_out and is_duplicate(
                    one.insert.kind, one.insert.content or {}, memory
                ):
                    found[address] = memory
        return list(found.values())

    def _prepared(self, access: Access, insert: Edit) -> SearchPlan:
        query = SearchQuery(
            namespace=access.relative(insert.namespace or StoredNamespace("")),
            with_children=False,
            text=text_of(insert.content)[:_SEARCHED_CHARACTERS],
            limit=_NEAREST,
        )
        return self._search.plan(access, query)


def text_of(content: Any) -> str:
    """Return the texts of a content, or its JSON where it has none."""
    return " ".join(_texts(content)) or json.dumps(content, ensure_ascii=False)


def _texts(content: Any) -> list[str]:
    match content:
        case str():
            return [content] if content.strip() else []
        case dict():
            return [text for value in content.values() for text in _texts(value)]
        case list():
            return [text for value in content for text in _texts(value)]
        case _:
            return []
