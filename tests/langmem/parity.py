"""LangMem and memoryd side by side: the same conversations, memories and decisions for both."""

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from pydantic import BaseModel

from tests.langmem import ours, theirs
from tests.langmem.decisions import JSON, Decision, Memory, Script, plain
from tests.langmem.original import InMemoryStore, LangMemMemory, create_memory_store_manager
from tests.langmem.ours import Memoryd

TALK = [
    {"role": "user", "content": "I am Ana, and I have moved to Lisbon."},
    {"role": "assistant", "content": "How do you like it there?"},
    {"role": "user", "content": "I like it. I have found a good tea shop."},
]


class Parity:
    """Two ways to the same memories."""

    _users = count(1)

    def __init__(self, memoryd: Memoryd) -> None:
        self.memoryd = memoryd

    async def agree(
        self,
        *replies: Sequence[Decision],
        existing: Mapping[str, Memory] | None = None,
        schemas: Sequence[type[BaseModel]] = (LangMemMemory,),
        **options: Any,
    ) -> list[Memory]:
        """Give both the same, without a store; return all memories of the script.

        `options` are of both: `enable_…` and `max_steps`.
        """
        held, classes = existing or {}, {schema.__name__: schema for schema in schemas}
        script = Script(*replies, held=held)
        found = await theirs.managed(
            script,
            TALK,
            [(id_, classes[m.kind].model_validate(m.content)) for id_, m in held.items()],
            schemas=list(schemas),
            **options,
        )
        _check(script, {})
        by_theirs = {
            id_: theirs.read(content, held[id_].kind if id_ in held else "")
            for id_, content in found
            if not theirs.is_removal(content)
        }

        script = Script(*replies, held=held)
        self.memoryd.llm.respond = ours.responding(script)
        given = [{"id": id_, "kind": m.kind, "content": m.content} for id_, m in held.items()]
        result = await self.memoryd.extract(
            TALK, manager_config=as_config(schemas, options), existing=given
        )
        _check(script, result)
        by_ours = {m["id"]: Memory(m["kind"], plain(m["content"])) for m in result["memories"]}
        removed = [id_ for id_, content in found if theirs.is_removal(content)]
        assert len(result["deleted"]) == len(removed) == len(held.keys() - script.held.keys())
        assert set(result["deleted"]) & held.keys() == set(removed) & held.keys()
        expected = [Memory(m.kind, plain(m.content)) for m in script.held.values()]
        for memories in (by_ours, by_theirs):
            assert sorted(memories.values(), key=repr) == sorted(expected, key=repr)
        for id_ in held:
            assert by_ours.get(id_) == by_theirs.get(id_)
        return expected

    def store(self, schemas: Sequence[type[BaseModel]] = (LangMemMemory,)) -> "StoreParity":
        """Return an empty store of each, for one user that no other test has."""
        return StoreParity(self.memoryd, f"user-{next(self._users)}", schemas)


class StoreParity:
    """A store of LangMem's and one of memoryd's that hold the same memories."""

    template = ("memories", "{user}")

    def __init__(self, memoryd: Memoryd, user: str, schemas: Sequence[type[BaseModel]]) -> None:
        self.memoryd = memoryd
        self.user = user
        self.schemas = schemas
        self.theirs: InMemoryStore = theirs.store()
        self.held: dict[str, Memory] = {}
        # The memories that the last requests showed to the models.
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

    async def extract(
        self, *replies: Sequence[Decision], queries: Sequence[str] = (), **options: Any
    ) -> None:
        """Extract memories from a conversation into both.

        `queries` are those of a query model, if there is one. `options` are of both:
        `default`, `phases`, `query_limit`, `enable_…`.
        """
        held = self._started(options)
        options = {"query_limit": 20, **options}
        await self._extract_theirs(Script(*replies, held=held), queries, **options)
        script = Script(*replies, held=held)
        await self._extract_ours(script, queries, **options)
        self.held = script.held
        await self.check()

    async def _extract_theirs(self, script: Script, queries: Sequence[str], **options: Any) -> None:
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
            {"messages": TALK, "max_steps": 1}, config={"configurable": {"user": self.user}}
        )
        _check(script, {})
        self.shown_theirs = [list(theirs.shown(asked).values()) for asked in model.asked]

    async def _extract_ours(self, script: Script, queries: Sequence[str], **options: Any) -> None:
        llm = self.memoryd.llm
        llm.requests.clear()
        llm.respond = ours.responding(script, queries)
        config = {
            **as_config(self.schemas, options),
            "namespace": list(self.template),
            "max_steps": 1,
            "query_model": f"openai:{ours.SEARCHER}" if queries else None,
        }
        variables = {"user": self.user}
        result = await self.memoryd.extract(TALK, manager_config=config, variables=variables)
        _check(script, result)
        requests = [
            asked
            for asked in llm.requests
            if asked.model != ours.SEARCHER and "others are missing" not in asked.last_user_text
        ]
        self.shown_ours = [list(ours.shown(asked).values()) for asked in requests]

    async def check(self) -> None:
        """Check that both hold the expected memories, known ones under their keys."""
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
    """Return the configuration of a manager that does the same as LangMem's."""
    is_profile = options.get("enable_inserts") is False
    kinds = [ours.kind(schema, single=is_profile) for schema in schemas]
    return {**options, "kinds": kinds, "max_change_share": 1}


def _contents(items: Mapping[str, JSON]) -> list[str]:
    return sorted(repr(plain(value)) for value in items.values())


def _check(script: Script, result: JSON) -> None:
    """Check that all replies were used, and every decision was carried out."""
    assert script.not_shown == []
    assert script.is_over
    assert result.get("rejected", []) == []
