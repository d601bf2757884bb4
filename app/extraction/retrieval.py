"""Retrieval of the existing memories that a conversation may be about."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

from app.auth.access import Access
from app.changes.duplicates import to_memory
from app.clock import Clock
from app.conversations.dialogue import Ask, recover_in_thread
from app.conversations.kinds import MESSAGE_KIND
from app.conversations.memories import MAX_CONTENT_BYTES, Memory
from app.conversations.messages import Turn
from app.conversations.prompt_text import render_text, render_turns
from app.db.database import Database
from app.extraction.plan import Config
from app.extraction.prompt import TEMPLATES
from app.json_values import JsonObject, replace_unstorable
from app.namespaces import StoredNamespace, to_stored
from app.providers.embedder import split_by_characters
from app.providers.llm import Message, Request, Tool
from app.resources import Resources
from app.search.plan import SearchPlan, SearchQuery
from app.search.service import SearchService
from app.store import repository
from app.store.types import Address, Item

DEFAULT_KEY = "default"
"""Key of the memory that a manager starts with."""

MAX_CHARACTERS = 96_000
"""Maximum size of the memories shown, as JSON: as much as of the conversation itself."""

LEAST_SHOWN, MOST_SHOWN = 10, 50
"""Number of memories shown, if a manager does not set it."""

_MAX_DOCUMENTS = 50
"""Maximum documents of singletons; there are more only if other clients wrote them."""

MAX_QUERIES = 8
"""Maximum queries taken from a model."""

_WINDOW_CHARACTERS = 1_000
"""About as many characters as the local embedding model reads."""

_RECENT_CHARACTERS = 400_000
_LAST_TURNS = 4

SEARCH = Tool(
    name="search_memories",
    description="Search the memories by meaning and by words.",
    parameters={
        "type": "object",
        "properties": {
            "query": {"type": "string", "description": "What a memory might say."},
        },
        "required": ["query"],
        "additionalProperties": False,
    },
)


class Retriever:
    """Finds memories in one namespace, not in those below it, which may hold other kinds.

    Messages stored verbatim are not memories, unless a manager has a kind of that name.
    """

    def __init__(self, database: Database, search: SearchService, clock: Clock) -> None:
        self._database = database
        self._search = search
        self._clock = clock

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Build the retriever from a process's resources."""
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
        """Return the memories nearest to the text of the turns, the oldest first.

        All documents of singletons are added, and, if there is no memory at all, the manager's
        default, which is not written yet. `ask` asks the query model, if there is one.
        """
        queries = await ask_for_queries(ask, turns, context_messages) if ask else []
        queries = queries or split_into_queries(turns[context_messages:])
        items = await self._items(access, namespace, config, queries)
        if items is None:
            return _default(to_stored(namespace, access.root), config)
        ordered = sorted(items, key=lambda item: (item.created_at, item.address.key))
        return [to_memory(item, f"m{number}") for number, item in enumerate(ordered, start=1)]

    async def find_at(
        self, access: Access, namespace: StoredNamespace, keys: Iterable[str]
    ) -> dict[str, Memory]:
        """Return the memories at some keys of a stored namespace."""
        addresses = [Address(namespace, key) for key in keys]
        async with self._database.connection(access.root) as connection:
            items = await repository.find_many(connection, addresses, self._clock.now())
        return {address.key: to_memory(item, address.key) for address, item in items.items()}

    async def _items(
        self, access: Access, namespace: list[str], config: Config, queries: Sequence[str]
    ) -> list[Item] | None:
        """Return the items of the memories to show; None if the namespace is empty."""

        def plan(**members: Any) -> SearchPlan:
            query = SearchQuery(namespace=namespace, with_children=False, **members)
            return self._search.plan(access, query)

        limit = _limit(config, queries)
        memories = _filter_memories(config)
        ranked = [plan(text=q, limit=limit, filter=memories) for q in queries if limit]
        vectors = await self._search.embed_if_possible(ranked)
        documents = plan(filter=_filter_documents(config), limit=_MAX_DOCUMENTS, sort="created_at")
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
        nearest = sorted(best.values(), key=lambda scored: -scored[0])[:limit]
        items = {item.address: item for item in _fit(item for _, item in nearest)}
        items |= {hit.item.address: hit.item for hit in chosen.hits}
        return [item for item in items.values() if len(item.value) <= MAX_CONTENT_BYTES]


def _limit(config: Config, queries: Sequence[str]) -> int:
    """Return how many memories to show: as many as there are queries, within limits.

    Longer conversations concern more memories.
    """
    if config.query_limit is not None:
        return config.query_limit
    return min(max(LEAST_SHOWN, len(queries)), MOST_SHOWN)


def _fit(items: Iterable[Item]) -> Iterator[Item]:
    """Yield the items, the nearest first, that a prompt has room for."""
    room = MAX_CHARACTERS
    for item in items:
        if len(item.value) <= min(room, MAX_CONTENT_BYTES):
            room -= len(item.value)
            yield item


def _filter_memories(config: Config) -> JsonObject | None:
    """Return the filter that leaves out messages."""
    names = {kind.name for kind in config.kinds}
    return None if MESSAGE_KIND in names else {"kind": {"$ne": MESSAGE_KIND}}


def _filter_documents(config: Config) -> JsonObject:
    """Return the filter that finds the documents of singletons, and items at their keys."""
    names = [kind.name for kind in config.kinds if kind.singleton]
    return {"$or": [{"kind": {"$in": names}}, {"$meta": {"key": {"$in": names}}}]}


def _default(namespace: StoredNamespace, config: Config) -> list[Memory]:
    if config.default is None:
        return []
    kind = config.kinds[0].name
    return [Memory("m1", kind, config.default, namespace=namespace, key=DEFAULT_KEY)]


def split_into_queries(turns: Sequence[Turn]) -> list[str]:
    """Return queries from the messages themselves.

    They are the last turns one by one and the last of each speaker, because each may be about
    something else, and the whole text in windows, because a turn alone may be too short, and every
    memory that the conversation changes must be found.
    """
    said = [turn for turn in turns if turn.role != "system" and turn.text.strip()]
    of_speakers = {turn.speaker: turn for turn in said if turn.role != "tool"}
    texts = [turn.text for turn in (*said[-_LAST_TURNS:], *of_speakers.values())]
    recent = "\n".join(render_text(turn) for turn in said)[-_RECENT_CHARACTERS:]
    queries = [text[-_WINDOW_CHARACTERS:].strip() for text in texts]
    return list(dict.fromkeys([*queries, *split_by_characters(recent, _WINDOW_CHARACTERS)]))


async def ask_for_queries(ask: Ask, turns: Sequence[Turn], context_turns: int) -> list[str]:
    """Return the queries that a model writes; there may be none."""
    request = Request(
        system=TEMPLATES.fill("queries", most=str(MAX_QUERIES)),
        messages=(Message("user", render_turns(turns, context_turns)),),
        tools=(SEARCH,),
        tool_choice="any",
    )
    reply = await recover_in_thread(await ask(request, "search"), request.tools)
    queries = [(call.arguments or {}).get("query") for call in reply.calls]
    texts = [replace_unstorable(text, " ").strip() for text in queries if isinstance(text, str)]
    return [text[:_WINDOW_CHARACTERS] for text in dict.fromkeys(texts) if text][:MAX_QUERIES]
