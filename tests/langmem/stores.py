"""LangMem's manager over a store that a test looks into, and memoryd's over a namespace."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from langchain_core.messages import AIMessage
from langgraph.store.base import Op, PutOp, Result, SearchOp
from typing_extensions import override

from tests.langmem import ours, theirs
from tests.langmem.both import as_config
from tests.langmem.decisions import JSON
from tests.langmem.original import (
    Asked,
    ChatModel,
    InMemoryStore,
    LangMemMemory,
    calling,
    create_memory_store_manager,
)
from tests.langmem.ours import Memoryd
from tests.support.llm_server import calls

CURSED = "This cannot be stored."
MEMORY = as_config([LangMemMemory], {})
"""The configuration of a manager whose only kind is LangMem's."""


class StoreManager(Protocol):
    """What is used of LangMem's store manager."""

    def invoke(self, state: JSON, config: Any = None) -> list[JSON]: ...

    async def ainvoke(self, state: JSON, config: Any = None) -> list[JSON]: ...

    def get(self, key: str) -> Any: ...


class Store(InMemoryStore):
    """A store that keeps what it was searched for, and cannot store one memory."""

    def __init__(self) -> None:
        super().__init__()
        self.queries: list[str] = []

    @override
    def batch(self, ops: Iterable[Op]) -> list[Result]:
        return super().batch(self._looked_at(ops))

    @override
    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        return await super().abatch(self._looked_at(ops))

    def _looked_at(self, ops: Iterable[Op]) -> list[Op]:
        listed = list(ops)
        self.queries += [op.query for op in listed if isinstance(op, SearchOp) and op.query]
        if any(isinstance(op, PutOp) and CURSED in str(op.value) for op in listed):
            raise OSError("refused")
        return listed


def value(text: str) -> JSON:
    """Return how a memory of LangMem's kind is stored."""
    return {"kind": "Memory", "content": {"content": text}}


def remembers(text: str) -> tuple[str, JSON]:
    """Return the call of memoryd's tool that makes such a memory."""
    return ours.insert("Memory", {"content": text})


def answering(*wanted: tuple[str, JSON]) -> Callable[[Asked], AIMessage]:
    """Return a `respond` that calls the same tools whatever it is asked."""
    return lambda _: calling(*wanted)


def manager_of(
    store: InMemoryStore, *wanted: tuple[str, JSON], model: ChatModel | None = None, **options: Any
) -> StoreManager:
    """Return a manager of LangMem's whose model always calls the same tools."""
    chosen = model or ChatModel(respond=answering(*wanted))
    manager: StoreManager = create_memory_store_manager(
        chosen, store=store, **{"namespace": ("ana",), **options}
    )
    return manager


async def shown_by_langmem(
    store: InMemoryStore, messages: Sequence[JSON], **options: Any
) -> list[JSON]:
    """Return the memories that LangMem shows to its model."""
    model = ChatModel(respond=answering())
    await manager_of(store, model=model, **options).ainvoke({"messages": messages})
    return list(theirs.shown(model.asked[0]).values())


async def shown_by_memoryd(
    memoryd: Memoryd, namespace: list[str], messages: Sequence[JSON], **options: Any
) -> list[JSON]:
    """Return the memories that memoryd shows to its model."""
    memoryd.llm.script.append(calls(ours.no_change()))
    await memoryd.extract(messages, manager_config={**MEMORY, **options}, namespace=namespace)
    return list(ours.shown(memoryd.llm.requests[-1]).values())
