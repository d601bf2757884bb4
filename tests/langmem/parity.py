"""LangMem and memoryd side by side: the same conversations, memories and decisions for both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel

from tests.langmem import ours, theirs
from tests.langmem.decisions import JSON, Decision, Memory, Script, plain
from tests.langmem.original import InMemoryStore, LangMemMemory, create_memory_store_manager
from tests.langmem.ours import Memoryd
from tests.support.llm_server import Received

TALK = [
    {"role": "user", "content": "I am Ana, and I have moved to Lisbon."},
    {"role": "assistant", "content": "How do you like it there?"},
    {"role": "user", "content": "I like it. I have found a good tea shop."},
]

Form = Literal["texts", "pairs", "triples"]


@dataclass(frozen=True)
class Outcome:
    """All memories after an extraction; those that were given with an id, by that."""

    given: Mapping[str, Memory]
    others: Sequence[Memory]
    deleted: Sequence[str]


class Both:
    """Two ways to the same memories."""

    def __init__(self, memoryd: Memoryd) -> None:
        self.memoryd = memoryd
        self._stores = 0

    async def agree(
        self,
        *replies: Sequence[Decision],
        existing: Mapping[str, Memory] | None = None,
        form: Form = "triples",
        schemas: Sequence[type[BaseModel]] = (LangMemMemory,),
        messages: Sequence[Any] = TALK,
        **options: Any,
    ) -> dict[str, Memory]:
        """Give both the same, without a store; return the memories, which are those of the script.

        `options` are of both: `enable_…` and `max_steps`.
        """
        classes = {schema.__name__: schema for schema in schemas}
        held = existing or {}
        script = Script(*replies, held=held)
        their_own = await theirs.managed(
            script,
            messages,
            _their_existing(held, form, classes),
            schemas=list(schemas),
            **options,
        )
        _check(script, {})
        their_outcome = _their_outcome(their_own, held, form)

        ours_decided = Script(*replies, held=held)
        self.memoryd.llm.respond = ours.responding(ours_decided)
        result = await self.memoryd.extract(
            messages, manager_config=as_config(schemas, options), existing=_our_existing(held, form)
        )
        _check(ours_decided, result)
        assert _our_outcome(result, held, form) == their_outcome
        expected = [Memory(m.kind, plain(m.content)) for m in script.held.values()]
        memories = [*their_outcome.given.values(), *their_outcome.others]
        assert _sorted(memories) == _sorted(expected)
        assert len(their_outcome.deleted) == len(held.keys() - script.held.keys())
        return script.held

    def store(self, schemas: Sequence[type[BaseModel]] = (LangMemMemory,)) -> "BothStores":
        """Return an empty store of each, for one user that no other test has."""
        self._stores += 1
        return BothStores(self.memoryd, f"user-{self._stores}", schemas)


class BothStores:
    """A store of LangMem's and one of memoryd's that hold the same memories."""

    template = ("memories", "{user}")

    def __init__(self, memoryd: Memoryd, user: str, schemas: Sequence[type[BaseModel]]) -> None:
        self.memoryd = memoryd
        self.user = user
        self.schemas = schemas
        self.theirs: InMemoryStore = theirs.store()
        self.held: dict[str, Memory] = {}
        # What the models were asked the last time, and the memories that were shown to them.
        self.requests: list[Received] = []
        self.shown_ours: list[list[JSON]] = []
        self.shown_theirs: list[list[JSON]] = []
        self._keys: set[str] = set()

    @property
    def namespace(self) -> list[str]:
        return ["memories", self.user]

    async def put(self, **memories: Memory) -> None:
        """Put memories into both under the names that decisions use."""
        for key, memory in memories.items():
            value = {"kind": memory.kind, "content": memory.content}
            await self.theirs.aput(tuple(self.namespace), key, value)
            await self.memoryd.store.put(self.namespace, key, value)
            self.held[key] = memory
            self._keys.add(key)

    async def learn(
        self,
        *replies: Sequence[Decision],
        messages: Sequence[Any] = TALK,
        max_steps: int = 1,
        query_limit: int = 20,
        queries: Sequence[str] = (),
        **options: Any,
    ) -> None:
        """Let both learn from a conversation.

        `queries` are those of a query model, where there is to be one. `options` are of both:
        `default`, `phases`, `enable_…`.
        """
        held = self._started(options)
        options = {"query_limit": query_limit, **options}
        await self._learn_theirs(
            Script(*replies, held=held), messages, max_steps, queries, **options
        )
        script = Script(*replies, held=held)
        await self._learn_ours(script, messages, max_steps, queries, **options)
        self.held = script.held
        await self.check()

    async def _learn_theirs(
        self,
        script: Script,
        messages: Sequence[Any],
        max_steps: int,
        queries: Sequence[str],
        **options: Any,
    ) -> None:
        model = theirs.model_of(script)
        manager = create_memory_store_manager(
            model,
            schemas=list(self.schemas),
            store=self.theirs,
            namespace=self.template,
            query_model=theirs.searching(queries) if queries else None,
            **options,
        )
        await manager.ainvoke(
            {"messages": list(messages), "max_steps": max_steps},
            config={"configurable": {"user": self.user}},
        )
        _check(script, {})
        self.shown_theirs = [list(theirs.shown(asked).values()) for asked in model.asked]

    async def _learn_ours(
        self,
        script: Script,
        messages: Sequence[Any],
        max_steps: int,
        queries: Sequence[str],
        **options: Any,
    ) -> None:
        llm = self.memoryd.llm
        llm.requests.clear()
        llm.respond = ours.responding(script, queries)
        query_model = f"openai:{ours.SEARCHER}" if queries else None
        result = await self.memoryd.extract(
            messages,
            manager_config={
                **as_config(self.schemas, options),
                "namespace": list(self.template),
                "max_steps": max_steps,
                "query_model": query_model,
            },
            variables={"user": self.user},
        )
        _check(script, result)
        self.requests = [asked for asked in llm.requests if asked.model != ours.SEARCHER]
        self.shown_ours = [list(ours.shown(asked).values()) for asked in self.requests]

    async def check(self) -> None:
        """Check that both hold what they are to hold."""
        in_theirs = await theirs.items(self.theirs, self.namespace)
        in_ours = await self.memoryd.items(self.namespace)
        assert _contents(in_ours) == _contents(in_theirs)
        held = [{"kind": m.kind, "content": m.content} for m in self.held.values()]
        assert _contents(in_ours) == sorted(map(repr, plain(held)))
        for key in self._keys:
            assert plain(in_ours.get(key)) == plain(in_theirs.get(key))

    def _started(self, options: Mapping[str, Any]) -> dict[str, Memory]:
        default = options.get("default")
        if self.held or default is None:
            return self.held
        self._keys.add("default")
        return {"default": Memory(self.schemas[0].__name__, default)}


def as_config(schemas: Sequence[type[BaseModel]], options: Mapping[str, Any]) -> JSON:
    """Return the configuration of a manager that is to do what LangMem's does."""
    is_profile = options.get("enable_inserts") is False
    kinds = [ours.kind(schema, single=is_profile) for schema in schemas]
    return {**options, "kinds": kinds, "max_change_share": 1}


def _their_existing(
    held: Mapping[str, Memory], form: Form, classes: Mapping[str, type[BaseModel]]
) -> list[Any] | None:
    if not held:
        return None
    if form == "texts":
        return [memory.content["content"] for memory in held.values()]
    if form == "pairs":
        return [(id_, classes[m.kind].model_validate(m.content)) for id_, m in held.items()]
    return [(id_, memory.kind, memory.content) for id_, memory in held.items()]


def _our_existing(held: Mapping[str, Memory], form: Form) -> list[Any] | None:
    if not held:
        return None
    if form == "texts":
        return [{"content": {"content": m.content["content"]}} for m in held.values()]
    return [{"id": id_, "kind": m.kind, "content": m.content} for id_, m in held.items()]


def _their_outcome(
    found: Sequence[tuple[str, Any]], held: Mapping[str, Memory], form: Form
) -> Outcome:
    kept = [
        (id_, theirs.read(content, held[id_].kind if id_ in held else ""))
        for id_, content in found
        if not theirs.is_removal(content)
    ]
    deleted = [id_ for id_, content in found if theirs.is_removal(content)]
    return _outcome(kept, deleted, held, form)


def _our_outcome(result: JSON, held: Mapping[str, Memory], form: Form) -> Outcome:
    kept = [(m["id"], Memory(m["kind"], plain(m["content"]))) for m in result["memories"]]
    return _outcome(kept, result["deleted"], held, form)


def _outcome(
    kept: Sequence[tuple[str, Memory]],
    deleted: Sequence[str],
    held: Mapping[str, Memory],
    form: Form,
) -> Outcome:
    ids = set() if form == "texts" else held.keys()  # texts have none
    return Outcome(
        given={id_: memory for id_, memory in kept if id_ in ids},
        others=_sorted([memory for id_, memory in kept if id_ not in ids]),
        deleted=sorted(id_ if id_ in ids else "unnamed" for id_ in deleted),
    )


def _sorted(memories: Sequence[Memory]) -> list[Memory]:
    return sorted(memories, key=repr)


def _contents(items: Mapping[str, JSON]) -> list[str]:
    return sorted(repr(plain(value)) for value in items.values())


def _check(script: Script, result: JSON) -> None:
    """Check that all replies were wanted, and every decision was carried out."""
    assert script.not_shown == []
    assert script.is_over
    assert result.get("rejected", []) == []
