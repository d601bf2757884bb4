"""LangMem, doing what a script decides."""

import ast
import re
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage
from pydantic import BaseModel

from app.providers.embedder import FakeEmbedder
from tests.langmem.decisions import (
    JSON,
    Decision,
    Insert,
    Memory,
    Patch,
    Remove,
    Script,
    plain,
)
from tests.langmem.original import (
    Asked,
    ChatModel,
    InMemoryStore,
    calling,
    create_memory_manager,
)

_INSTANCE = re.compile(r'<instance id=(\S+) schema_type="[^"]*">\n(.*)\n</instance>')


def shown(asked: Asked) -> dict[str, JSON]:
    """Return the memories that a request shows, by the ids that it gives them."""
    return {id_: ast.literal_eval(content) for id_, content in _INSTANCE.findall(asked.text)}


def model_of(script: Script) -> ChatModel:
    """Return a chat model that decides what a script says."""

    def respond(asked: Asked) -> AIMessage:
        memories = shown(asked)
        calls = [_call(*decided) for decided in script.decide(memories)]
        if not calls and memories:
            # A call is forced: one that edits nothing is the only way to leave all as it is.
            calls = [_patch(next(iter(memories)))]
        return calling(*calls)

    return ChatModel(respond=respond)


def searching(queries: Sequence[str]) -> ChatModel:
    """Return a chat model that searches for something."""
    calls = [("search_memory", {"query": query}) for query in queries]
    return ChatModel(respond=lambda _: calling(*calls))


def _call(decision: Decision, id_: str) -> tuple[str, JSON]:
    match decision:
        case Insert(_, memory):
            return memory.kind, memory.content
        case Patch(_, edits):
            return _patch(id_, *edits)
        case Remove():
            return "RemoveDoc", {"json_doc_id": id_}


def _patch(id_: str, *edits: JSON) -> tuple[str, JSON]:
    return "PatchDoc", {"json_doc_id": id_, "planned_edits": "-", "patches": list(edits)}


async def managed(
    script: Script,
    messages: Sequence[Any],
    existing: Sequence[Any] | None = None,
    *,
    max_steps: int = 1,
    **options: Any,
) -> list[tuple[str, Any]]:
    """Return what a memory manager comes to: ids and contents."""
    manager = create_memory_manager(model_of(script), **options)
    state = {"messages": list(messages), "max_steps": max_steps}
    found = await manager.ainvoke(state if existing is None else {**state, "existing": existing})
    return [(memory.id, memory.content) for memory in found]


def is_removal(content: Any) -> bool:
    return type(content).__name__ == "RemoveDoc"


def read(content: Any, kind: str = "") -> Memory:
    """Return a memory of LangMem's; dicts do not say of which kind they are."""
    if isinstance(content, BaseModel):
        return Memory(type(content).__name__, plain(content.model_dump(mode="json")))
    return Memory(kind, plain(content))


def store() -> InMemoryStore:
    """Return a store that searches by the vectors that memoryd's tests use."""
    embedder = FakeEmbedder()

    async def embed(texts: Sequence[str]) -> list[list[float]]:
        return [vector.tolist() for vector in await embedder.embed(texts)]

    return InMemoryStore(index={"dims": embedder.dimensions, "embed": embed, "fields": ["$"]})


async def items(opened: InMemoryStore, namespace: Sequence[str]) -> dict[str, JSON]:
    """Return the values at and below a namespace by their keys."""
    found = await opened.asearch(tuple(namespace), limit=1000)
    return {item.key: item.value for item in found}
