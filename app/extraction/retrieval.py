"""Retrieval of the existing memories that a conversation may be about."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Self

from app.auth.access import Access
from app.changes.duplicates import to_memory
from app.clock import Clock
from app.conversations.dialogue import Ask, recover_in_thread
from app.conversations.division import (
    Refusal,
    ask_in_parts,
    cut_turn,
    find_room,
    group_turns,
)
from app.conversations.kinds import MESSAGE_KIND
from app.conversations.memories import MAX_CONTENT_BYTES, Memory
from app.conversations.messages import Turn
from app.conversations.prompt_text import measure_turn, render_text, render_turns
from app.db.database import Database
from app.extraction.plan import Config
from app.extraction.prompt import TEMPLATES
from app.json_values import JsonObject, replace_unstorable
from app.namespaces import StoredNamespace, to_stored
from app.providers.embedder import split_by_characters
from app.providers.errors import RequestTooLongError
from app.providers.llm import Message, Request, Tool
from app.resources import Resources
from app.search.hits import Hit
from app.search.plan import SearchPlan, SearchQuery
from app.search.service import SearchService
from app.store import repository
from app.store.types import Address, Item

DEFAULT_KEY = "default"
"""Key of the memory that a manager starts with."""

MAX_BYTES = 32_768
"""Maximum size of the memories shown, as JSON: about 8,000 tokens, or 180 memories."""

MAX_SHOWN = 200
"""Maximum number of memories shown if they are all memories that there are."""

LEAST_CHOSEN, MOST_CHOSEN = 10, 100
"""Number of memories shown if there are more, and a manager does not set it."""

_MAX_DOCUMENTS = 50
"""Maximum documents of singletons; there are more only if other clients wrote them."""

MAX_QUERIES = 8
"""Maximum queries taken from a model."""

_WINDOW_CHARACTERS = 1_000
"""About as many characters as the local embedding model reads."""

_RECENT_CHARACTERS = 400_000
_LAST_TURNS = 64

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


@dataclass(frozen=True, slots=True)
class ShownMemories:
    """The memories to show with a conversation; `are_all` if the namespace has no others."""

    memories: list[Memory]
    are_all: bool


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
    ) -> ShownMemories:
        """Return all memories if they fit, or else those nearest to the turns, the oldest first.

        All documents of singletons are added, and, if there is no memory at all, the manager's
        default, which is not written yet. `ask` asks the query model, if there is one and not all
        memories fit.
        """
        scope = _Scope(self._search, access, namespace, config)
        items = await self._list_all(scope)
        if items == []:
            return ShownMemories(_default(to_stored(namespace, access.root), config), are_all=True)
        are_all = items is not None
        if items is None:
            queries = await ask_for_queries(ask, turns, context_messages) if ask else []
            queries = queries or split_into_queries(turns[context_messages:])
            items = await self._choose(scope, queries)
        readable = [item for item in items if len(item.value) <= MAX_CONTENT_BYTES]
        ordered = sorted(readable, key=lambda item: (item.created_at, item.address.key))
        memories = [to_memory(item, f"m{number}") for number, item in enumerate(ordered, start=1)]
        return ShownMemories(memories, are_all=are_all and len(readable) == len(items))

    async def find_at(
        self, access: Access, namespace: StoredNamespace, keys: Iterable[str]
    ) -> dict[str, Memory]:
        """Return the memories at some keys of a stored namespace."""
        addresses = [Address(namespace, key) for key in keys]
        async with self._database.connection(access.root) as connection:
            items = await repository.find_many(connection, addresses, self._clock.now())
        return {address.key: to_memory(item, address.key) for address, item in items.items()}

    async def _list_all(self, scope: "_Scope") -> list[Item] | None:
        """Return the items of all memories; None if they are too many to show."""
        limit = scope.config.query_limit
        plan = scope.plan(limit=max(MAX_SHOWN if limit is None else limit, 1))
        async with self._database.connection(scope.access.root) as connection:
            page = await self._search.find(connection, plan, None, max_bytes=MAX_BYTES)
        fits = page.next_cursor is None and len(page.hits) <= (
            MAX_SHOWN if limit is None else limit
        )
        return [hit.item for hit in page.hits] if fits else None

    async def _choose(self, scope: "_Scope", queries: Sequence[str]) -> list[Item]:
        """Return the items of the documents, and of the memories nearest to each query."""
        limit = _limit(scope.config, queries)
        depth = min(limit, max(LEAST_CHOSEN, 2 * limit // max(len(queries), 1)))
        ranked = [scope.plan(text=query, limit=depth) for query in queries if limit]
        vectors = await self._search.embed_if_possible(ranked)
        async with self._database.connection(scope.access.root) as connection:
            documents = await self._search.find(connection, scope.plan_documents(), None)
            found = [
                (await self._search.find(connection, plan, vector)).hits
                for plan, vector in zip(ranked, vectors, strict=True)
            ]
        chosen = {item.address: item for item in _take_turns(found, limit)}
        return list((chosen | {hit.item.address: hit.item for hit in documents.hits}).values())


@dataclass(frozen=True, slots=True)
class _Scope:
    """The memories of a manager in one namespace."""

    search: SearchService
    access: Access
    namespace: list[str]
    config: Config

    def plan(self, **members: Any) -> SearchPlan:
        """Plan a search for memories."""
        return self._plan(filter=_filter_memories(self.config), **members)

    def plan_documents(self) -> SearchPlan:
        """Plan a listing of the documents of singletons."""
        documents = _filter_documents(self.config)
        return self._plan(filter=documents, limit=_MAX_DOCUMENTS, sort="created_at")

    def _plan(self, **members: Any) -> SearchPlan:
        query = SearchQuery(namespace=self.namespace, with_children=False, **members)
        return self.search.plan(self.access, query)


def _limit(config: Config, queries: Sequence[str]) -> int:
    """Return how many memories to choose: two for each query, within limits.

    Longer conversations concern more memories.
    """
    if config.query_limit is not None:
        return config.query_limit
    return min(max(LEAST_CHOSEN, 2 * len(queries)), MOST_CHOSEN)


def _take_turns(found: Sequence[Sequence[Hit]], limit: int) -> Iterator[Item]:
    """Yield the best items of the queries, then the second ones, while there is room.

    So no subject takes all places, however often a conversation returns to it.
    """
    room, seen = MAX_BYTES, set[Address]()
    for rank in zip_longest(*found):
        for hit in sorted(filter(None, rank), key=lambda hit: -(hit.score or 0.0)):
            item = hit.item
            if item.address in seen or len(seen) == limit:
                continue
            size = len(item.value)
            if size <= min(room, MAX_CONTENT_BYTES):
                room -= size
                seen.add(item.address)
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

    They are the latest messages one by one, because each may be about another subject and another
    person, and the whole text in windows, because a message alone may be too short, and every
    memory that the conversation changes must be found.
    """
    said = [turn for turn in turns if turn.role != "system" and turn.text.strip()]
    texts = [_with_name(turn) for turn in reversed(said) if turn.role != "tool"][:_LAST_TURNS]
    recent = "\n".join(render_text(turn) for turn in said)[-_RECENT_CHARACTERS:]
    return list(dict.fromkeys([*texts, *split_by_characters(recent, _WINDOW_CHARACTERS)]))


def _with_name(turn: Turn) -> str:
    """Return the end of a message, with the name of its speaker, which memories mention."""
    text = turn.text[-_WINDOW_CHARACTERS:].strip()
    return text if turn.speaker == turn.role else f"{turn.speaker}: {text}"


async def ask_for_queries(ask: Ask, turns: Sequence[Turn], context_turns: int) -> list[str]:
    """Return the queries that a model writes; there may be none.

    Of a conversation that is too long, the end is shown, without the context.
    """
    texts: list[str] = []

    async def ask_about(shown: tuple[Sequence[Turn], int]) -> None:
        request = Request(
            system=TEMPLATES.fill("queries", most=str(MAX_QUERIES)),
            messages=(Message("user", render_turns(*shown)),),
            tools=(SEARCH,),
            tool_choice="any",
            divisible=True,
        )
        reply = await recover_in_thread(await ask(request, "search"), request.tools)
        queries = [(call.arguments or {}).get("query") for call in reply.calls]
        texts.extend(replace_unstorable(q, " ").strip() for q in queries if isinstance(q, str))

    await ask_in_parts([(turns, context_turns)], ask_about, _shorten)
    return [text[:_WINDOW_CHARACTERS] for text in dict.fromkeys(texts) if text][:MAX_QUERIES]


def _shorten(
    left: Sequence[tuple[Sequence[Turn], int]], error: Refusal
) -> list[tuple[Sequence[Turn], int]]:
    """Return a shorter conversation in place of one that is too long: its end."""
    turns, context_turns = left[0]
    if not isinstance(error, RequestTooLongError):
        raise error
    if context_turns:
        return [(turns[context_turns:], 0)]
    room = find_room(error, sum(map(measure_turn, turns)))
    if not room:
        raise error
    end = group_turns(turns[::-1], room)[0][::-1]
    return [([cut_turn(turn, room) for turn in end], 0)]
