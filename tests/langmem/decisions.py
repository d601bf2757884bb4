"""What a model decides, in the words of neither LangMem nor memoryd."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import jsonpatch

JSON = dict[str, Any]


@dataclass(frozen=True)
class Memory:
    kind: str
    content: JSON


@dataclass(frozen=True)
class Insert:
    """A new memory, and the name by which later decisions refer to it."""

    name: str
    memory: Memory


@dataclass(frozen=True)
class Patch:
    name: str
    edits: tuple[JSON, ...]


@dataclass(frozen=True)
class Remove:
    name: str


Decision: TypeAlias = Insert | Patch | Remove


class Script:
    """A model's replies, decided beforehand, and the memories that they lead to.

    A reply without a decision leaves everything as it is.
    """

    def __init__(
        self, *replies: Sequence[Decision], held: Mapping[str, Memory] | None = None
    ) -> None:
        self.held = dict(held or {})
        self.not_shown: list[str] = []
        self._replies = deque(replies)

    @property
    def is_over(self) -> bool:
        return not self._replies

    def decide(self, shown: Mapping[str, JSON]) -> list[tuple[Decision, str]]:
        """Give the next reply: decisions with the id under which each memory is shown."""
        reply = self._replies.popleft()
        decided = [(decision, self._id(decision, shown)) for decision in reply]
        for decision in reply:
            self._carry_out(decision)
        return decided

    def _id(self, decision: Decision, shown: Mapping[str, JSON]) -> str:
        if not isinstance(decision, Patch | Remove):
            return ""
        content = plain(self.held[decision.name].content)
        id_ = next((id_ for id_, one in shown.items() if plain(one) == content), None)
        if id_ is None:
            self.not_shown.append(decision.name)
        return id_ or "not shown"

    def _carry_out(self, decision: Decision) -> None:
        match decision:
            case Insert(name, memory):
                self.held[name] = memory
            case Patch(name, edits):
                before = self.held[name]
                content = jsonpatch.apply_patch(before.content, list(edits))
                self.held[name] = Memory(before.kind, content)
            case Remove(name):
                del self.held[name]


def plain(content: Any) -> Any:
    """Return a content without members that are null, as Pydantic writes them; sorted by name."""
    match content:
        case dict():
            members = sorted(content.items())
            return {name: plain(value) for name, value in members if value is not None}
        case list():
            return [plain(value) for value in content]
        case _:
            return content


def said(text: str) -> Memory:
    """Return a memory of LangMem's own kind."""
    return Memory("Memory", {"content": text})


def replace(path: str, value: Any) -> JSON:
    return {"op": "replace", "path": path, "value": value}


def add(path: str, value: Any) -> JSON:
    return {"op": "add", "path": path, "value": value}


def reword(name: str, text: str) -> Patch:
    """Return the decision that a memory of LangMem's own kind says something else."""
    return Patch(name, (replace("/content", text),))
