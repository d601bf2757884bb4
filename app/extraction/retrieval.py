"""Which existing memories a conversation may be about."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

from app.auth.access import Access
from app.clock import Clock
from app.conversations.content import MAX_BYTES
from app.conversations.kinds import MESSAGE_KIND
from app.conversations.types import Ask, Memory, Turn
from app.conversations.value_format import as_existing
from app.db.database import Database
from app.extraction.plan import Config
from app.extraction.queries import windows, written_by_model
from app.namespaces import StoredNamespace, to_stored
from app.resources import Resources
from app.search.plan import SearchPlan, SearchQuery
from app.search.service import SearchService
from app.store import repository
from app.store.types import Address, Item

DEFAULT_KEY = "default"
"""Of the memory that a manager starts with."""

MAX_CHARACTERS = 96_000
"""Of the memories nearest to a conversation, as JSON: no more than of the conversation itself."""

LEAST_SHOWN, MOST_SHOWN = 10, 50
"""Memories, where a manager does not say how many."""

_MAX_DOCUMENTS = 50
"""Of single kinds; there are more only where others wrote them."""


class Retriever:
    """Finds memories in one namespace, not in those below it, which may hold other kinds.

    Messages that are kept there word for word are none, unless a manager has a kind of that name.
    """

    def __init__(self, database: Database, search: SearchService, clock: Clock) -> None:
        self._database = database
        self._search = search
        self._clock = clock

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make it from a process's resources."""
        return cls(resources.database, SearchService.build(resources), resources.clock)

    async def find(
        self,
        access: Access,
        namespace: list[str],
        config: Config,
        turns: Sequence[Turn],
        *,
        context_messages: int = 0,
        ask: Ask | None = None,
    ) -> list[Memory]:
        """Return the memories nearest to what the turns say, the oldest first.

        With them come all documents of single kinds and, where there is no memory at all, the
        manager's default, not written yet. `ask` asks the query model, where there is one.
        """
        queries = await written_by_model(ask, turns, context_messages) if ask else []
        queries = queries or windows(turns[context_messages:])
        items = await self._items(access, namespace, config, queries)
        if items is None:
            return _default(to_stored(namespace, access.root), config)
        ordered = sorted(items, key=lambda item: (item.created_at, item.address.key))
        return [as_existing(item, f"m{number}") for number, item in enumerate(ordered, start=1)]

    async def at(
        self, access: Access, namespace: StoredNamespace, keys: Iterable[str]
    ) -> dict[str, Memory]:
        """Return the memories that are at some keys of a stored namespace."""
        addresses = [Address(namespace, key) for key in keys]
        async with self._database.connection(access.root) as connection:
            items = await repository.find_many(connection, addresses, self._clock.now())
        return {address.key: as_existing(item, address.key) for address, item in items.items()}

    async def _items(
        self, access: Access, namespace: list[str], config: Config, queries: Sequence[str]
    ) -> list[Item] | None:
        """Return the items of the memories to show; None if the namespace is empty."""

        def plan(**members: Any) -> SearchPlan:
            query = SearchQuery(namespace=namespace, with_children=False, **members)
            return self._search.plan(access, query)

        limit = _limit(config, queries)
        memories = _memories(config)
        ranked = [plan(text=q, limit=limit, filter=memories) for q in queries if limit]
        vectors = await self._search.embed(ranked)
        documents = plan(filter=_documents(config), limit=_MAX_DOCUMENTS, sort="created_at")
        async with self._database.connection(access.root) as connection:
            anything = await self._search.find(connection, plan(limit=1, filter=memories), None)
            if not anything.hits:
                return None
            chosen = await self._search.find(connection, documents, None)
            best: dict[Address, tuple[float, Item]] = {}
            for ranked_plan, vector in zip(ranked, vectors, strict=True):
                for hit in (await self._search.find(connection, ranked_plan, vector)).hits:
                    address = hit.item.address
                    score = -1.0 if hit.score is None else hit.score
                    if score > best.get(address, (-2.0, None))[0]:
                        best[address] = (score, hit.item)
        nearest = sorted(best.values(), key=lambda found: -found[0])[:limit]
        items = {item.address: item for item in _fitting(item for _, item in nearest)}
        items |= {hit.item.address: hit.item for hit in chosen.hits}
        return [item for item in items.values() if len(item.value) <= MAX_BYTES]


def _limit(config: Config, queries: Sequence[str]) -> int:
    """Return how many memories to show: for what is said at length, as many as there are searches.

    A conversation touches the more memories the longer it is.
    """
    if config.query_limit is not None:
        return config.query_limit
    return min(max(LEAST_SHOWN, len(queries)), MOST_SHOWN)


def _fitting(items: Iterable[Item]) -> Iterator[Item]:
    """Yield the items, the nearest first, that a prompt has room for."""
    room = MAX_CHARACTERS
    for item in items:
        if len(item.value) <= min(room, MAX_BYTES):
            room -= len(item.value)
            yield item


def _memories(config: Config) -> dict[str, Any] | None:
    """Return the filter that leaves out messages."""
    names = {kind.name for kind in config.kinds}
    return None if MESSAGE_KIND in names else {"kind": {"$ne": MESSAGE_KIND}}


def _documents(config: Config) -> dict[str, Any]:
    """Return the filter that finds the documents of single kinds, or what is at their place."""
    names = [kind.name for kind in config.kinds if kind.singleton]
    return {"$or": [{"kind": {"$in": names}}, {"$meta": {"key": {"$in": names}}}]}


def _default(namespace: StoredNamespace, config: Config) -> list[Memory]:
    if config.default is None:
        return []
    kind = config.kinds[0].name
    return [Memory("m1", kind, config.default, namespace=namespace, key=DEFAULT_KEY)]
