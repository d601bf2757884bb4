from collections.abc import Sequence
from typing import Any

import pytest
from typing_extensions import override

from app.auth.access import ANONYMOUS
from app.conversations.memories import Memory, MemoryFormat
from app.conversations.messages import Turn
from app.db.database import Database
from app.extraction.plan import Config
from app.extraction.retrieval import (
    DEFAULT_KEY,
    MAX_BYTES,
    MAX_QUERIES,
    Retriever,
    ShownMemories,
    ask_for_queries,
    split_into_queries,
)
from app.managers.schemas import ManagerConfig
from app.namespaces import to_stored
from app.partial_dates import PartialDate
from app.providers.embedder import FakeEmbedder, TextKind, Vector
from app.providers.llm import Completion, Request
from tests.support.extraction import ANA, Memories
from tests.support.scripted_model import ScriptedModel, calls, says

pytestmark = pytest.mark.slow  # searches of a database

STORED = to_stored(ANA)
SPORT = {"name": "sport", "schema": {"type": "object"}, "singleton": True}


def config(**members: Any) -> Config:
    return Config.of(ManagerConfig.model_validate(members), deletes=False)


def turn(text: str, role: str = "user", speaker: str | None = None) -> Turn:
    return Turn(text, speaker or role, text, role)


async def find(
    memories: Memories,
    *turns: Turn,
    ask: ScriptedModel | None = None,
    context_messages: int = 0,
    **members: Any,
) -> list[Memory]:
    shown = await find_shown(
        memories, *turns, ask=ask, context_messages=context_messages, **members
    )
    return shown.memories


async def find_shown(
    memories: Memories,
    *turns: Turn,
    ask: ScriptedModel | None = None,
    context_messages: int = 0,
    **members: Any,
) -> ShownMemories:
    retriever = Retriever.build(memories.resources)
    return await retriever.find(
        ANONYMOUS, ANA, config(**members), turns, context_messages=context_messages, ask=ask
    )


def keys(found: Sequence[Memory]) -> list[str | None]:
    return [memory.key for memory in found]


async def put_many(memories: Memories, **texts: str) -> None:
    for key, text in texts.items():
        await memories.put(key, text)


async def test_every_turn_and_speaker_is_searched_for(memories: Memories) -> None:
    fillers = {f"filler{n}": f"Filler number {n} about nothing." for n in range(20)}
    await put_many(memories, dog="Ana has a dog called Rex.", tea="Ana drinks green tea.")
    await put_many(memories, **fillers, job="Ben works as a baker.")
    found = await find(
        memories,
        turn("My baker Ben works at night.", speaker="ben"),
        *(turn(f"Something else {n}.") for n in range(6)),
        turn("Rex is a good dog."),
        turn("How about some green tea?", "assistant"),
        query_limit=6,
    )
    assert {"dog", "tea", "job"} <= set(keys(found))
    assert len(found) == 6


async def test_memories_come_in_the_order_of_creation_with_details(memories: Memories) -> None:
    await memories.put("b", "Ana has a dog.", importance=0.4, valid_from="2026-01-02T00:00:00Z")
    await memories.put("a", "Ana has a cat.")
    first, second = await find(memories, turn("cat"))
    assert (second.id, second.key) == ("m2", "a")
    row = await memories.get("b")
    assert first == Memory(
        *("m1", "memory", {"content": "Ana has a dog."}),
        format=MemoryFormat.MEMORY,
        namespace=STORED,
        key="b",
        version=1,
        importance=0.4,
        valid_from=PartialDate(row["valid_from"]),
        updated_at=row["updated_at"],
    )


async def test_namespaces_below_and_beside_are_left_alone(memories: Memories) -> None:
    for number, labels in enumerate([[*ANA, "work"], ["users", "ana2"], ["users"], ["x", *ANA]]):
        await memories.put(f"k{number}", "Ana has a dog.", labels)
    assert await find(memories, turn("dog")) == []
    await memories.put("own", "Ana has a dog.")
    assert keys(await find(memories, turn("dog"))) == ["own"]


@pytest.mark.parametrize("limit", [1, 2, 3, 5])
async def test_any_limit_finds_memories(memories: Memories, limit: int) -> None:
    await put_many(memories, **{f"k{n}": f"Ana has a dog, number {n}." for n in range(8)})
    assert len(await find(memories, turn("dog"), query_limit=limit)) == limit


async def test_documents_of_singleton_kinds_are_always_found(memories: Memories) -> None:
    await put_many(memories, **{f"k{n}": "Ana likes tea." for n in range(4)})
    await memories.put("sport", {"anything": "at the document's place"})
    await memories.put("x", {"kind": "sport", "content": {"club": "Benfica"}})
    chosen = [{"name": "memory"}, SPORT]
    assert keys(await find(memories, turn("tea"), kinds=chosen, query_limit=0)) == ["sport", "x"]
    found = await find(memories, turn("tea"), kinds=chosen, query_limit=2)
    assert len(found) == 4
    assert {"sport", "x"} < set(keys(found))


async def test_values_of_any_shape_are_understood(memories: Memories) -> None:
    values: list[dict[str, Any]] = [
        {"content": "Ana has a dog."},  # as LangMem's manage_memory tool writes it
        {"content": {"text": "Ana has a dog."}},
        {"kind": "Memory", "content": {"content": "Ana has a dog."}},
        {"kind": ["dog"], "content": None},
        {"content": ["dog"]},
        {"dog": True},
        {},
        {"kind": "memory"},
    ]
    for number, value in enumerate(values):
        await memories.put(f"k{number}", value)
    found = await find(memories, turn("dog"))
    assert [memory.content for memory in found] == [
        {"content": "Ana has a dog."},
        {"text": "Ana has a dog."},
        {"content": "Ana has a dog."},
        *values[3:],
    ]
    assert [memory.kind for memory in found] == [None, None, "Memory", *[None] * 5]


async def test_a_long_conversation_is_searched_with_its_beginning_too(memories: Memories) -> None:
    await put_many(memories, **{f"filler{n}": f"Plan number {n} is good." for n in range(20)})
    await put_many(memories, home="Ana lives in Porto.")
    talk = [turn(f"Let us talk about plan number {n % 20}. " * 10) for n in range(60)]
    found = await find(memories, turn("Ana lives in Porto no more."), *talk)
    assert "home" in keys(found)


async def test_messages_kept_verbatim_are_not_memories(memories: Memories) -> None:
    said = {"kind": "message", "content": {"role": "user", "text": "I moved to Lisbon."}}
    await memories.put("said", said)
    await memories.put("home", "Ana lives in Porto.")
    moved = turn("I moved to Lisbon.")
    assert keys(await find(memories, moved)) == ["home"]
    own = {"name": "message", "schema": {"type": "object"}}
    assert keys(await find(memories, moved, kinds=[own])) == ["said", "home"]


async def test_all_memories_are_shown_if_they_fit(memories: Memories) -> None:
    await put_many(memories, **{f"k{n}": f"Fact number {n} about Ben." for n in range(60)})
    model = ScriptedModel()
    shown = await find_shown(memories, turn("I like tea."), ask=model)
    assert (len(shown.memories), shown.are_all, model.requests) == (60, True, [])
    few = await find_shown(memories, turn("Fact number 7?"), query_limit=5)
    assert (len(few.memories), few.are_all) == (5, False)
    none = await find_shown(memories, turn("Fact number 7?"), query_limit=0)
    assert (none.memories, none.are_all) == ([], False)


async def test_no_subject_and_no_speaker_takes_all_places(memories: Memories) -> None:
    size = MAX_BYTES // 100
    hiking = {f"hike{n}": f"Ana hikes in the Alps, tour {n}. ".ljust(size, "x") for n in range(120)}
    await put_many(memories, **hiking, piano="Ben learns the piano.", soup="Ben cooks ramen.")
    talk = [turn(f"Ana hikes in the Alps, tour {n}, was great.", speaker="Ana") for n in range(20)]
    shown = await find_shown(
        memories, turn("Ramen tonight!", speaker="Ben"), *talk, turn("My piano!", speaker="Ben")
    )
    assert not shown.are_all
    assert {"piano", "soup"} < set(keys(shown.memories))
    assert sum(len(str(memory.content)) for memory in shown.memories) < MAX_BYTES * 1.1


async def test_the_nearest_memories_that_fit_are_returned(memories: Memories) -> None:
    size = MAX_BYTES // 2
    await put_many(memories, near="dog " * (size // 4), far="dog cat cow " * (size // 12))
    await memories.put("large", {"content": "dog " * 20_000})
    await memories.put("expired", "Ana has a dog.", ttl_seconds=0.001)
    await memories.put("small", "a pet", ttl_seconds=60)
    before = await memories.rows("SELECT expires_at FROM items")
    shown = await find_shown(memories, turn("dog"))
    assert (keys(shown.memories), shown.are_all) == (["near", "small"], False)
    assert await memories.rows("SELECT expires_at FROM items") == before
    assert memories.resources.usage.take() == {}  # which is no use of a memory


async def test_an_empty_namespace_has_the_managers_default(memories: Memories) -> None:
    default = {"content": "Nothing is known."}
    kept = {"kind": "message", "content": {"role": "user", "text": "Hi"}}
    await memories.put("message", kept)  # which is not a memory
    found = await find(memories, turn("dog"), default=default)
    assert found == [Memory("m1", "memory", default, namespace=STORED, key=DEFAULT_KEY)]
    await memories.put("a", "Ana has a cat.")
    assert keys(await find(memories, turn("dog"), default=default, query_limit=0)) == []


async def test_a_query_model_writes_the_queries(memories: Memories) -> None:
    await put_many(memories, dog="Rex barks", tea="Sencha is tea", car="A blue car")
    model = ScriptedModel(
        calls(("search_memories", {"query": "Sencha"}), ("search_memories", {"query": "Rex"}))
    )
    found = await find(memories, turn("A blue car"), ask=model, query_limit=2)
    assert keys(found) == ["dog", "tea"]
    (request,) = model.requests
    assert "A blue car" in request.messages[0].text
    assert model.tool_names == ["search_memories"]
    assert model.purposes == ["search"]
    many = ScriptedModel(calls(*(("search_memories", {"query": f"q{n % 11}"}) for n in range(20))))
    assert await ask_for_queries(many, [turn("x")], 0) == [f"q{n}" for n in range(MAX_QUERIES)]
    for unusable in (
        says("There is nothing to look for."),
        calls(("search_memories", {}), ("search_memories", "{"), ("search_memories", {"query": 3})),
        calls(("search_memories", {"query": " \x00"})),
    ):
        found = await find(memories, turn("Sencha"), ask=ScriptedModel(unusable), query_limit=1)
        assert keys(found) == ["tea"]
    said = turn("Rex"), turn("Sencha")
    assert keys(await find(memories, *said, context_messages=1, query_limit=1)) == ["tea"]


def test_every_message_is_a_query_and_so_is_all_recent_text() -> None:
    turns = [turn(f"turn {n}", speaker="Ana" if n == 1 else None) for n in range(3)]
    assert split_into_queries([turn("rules", "system"), *turns]) == [
        "turn 2",
        "Ana: turn 1",
        "turn 0",
        "turn 0\nturn 1\nturn 2",
    ]
    long = [turn("word " * 5_000), turn("  "), turn("again " * 5_000, "assistant")]
    found = split_into_queries(long)
    assert len(found) <= 20
    assert max(map(len, found)) <= 1_000
    assert split_into_queries([turn(" ", "user"), turn("", "assistant")]) == []


class GuardedEmbedder(FakeEmbedder):
    """Fails the test if it is called while a connection is held."""

    database: Database | None = None

    @override
    async def embed(self, texts: Sequence[str], *, kind: TextKind = "passage") -> list[Vector]:
        assert not (self.database and self.database.connections_in_use)
        return await super().embed(texts, kind=kind)


@pytest.fixture
def embedder() -> GuardedEmbedder:
    return GuardedEmbedder()


async def test_no_connection_is_held_while_a_model_or_an_embedder_answers(
    memories: Memories, embedder: GuardedEmbedder
) -> None:
    await put_many(memories, dog="Rex barks", cat="Tom sleeps")
    database = embedder.database = memories.resources.database
    asked = embedder.calls.copy()

    async def respond(_: Request) -> Completion:
        assert database.connections_in_use == 0
        content = {"content": "Ana likes tea."}
        return calls(("insert_memory", {"content": content, "importance": 0.5}))

    memories.model.respond = respond
    result = await memories.extract(
        manager_config={
            "query_model": "anthropic:x",
            "query_limit": 1,
            "phases": [{"instructions": "Tidy up."}],
        }
    )
    assert result["counts"]["inserted"] == 1
    assert len(memories.model.requests) == 3
    assert len(embedder.calls) > len(asked)
