"""LangMem's tools for agents and memoryd's side by side: the same calls to both."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeAlias

from langchain_core.tools import BaseTool

from tests.langmem import theirs
from tests.langmem.decisions import JSON
from tests.langmem.original import (
    InMemoryStore,
    create_manage_memory_tool,
    create_search_memory_tool,
)
from tests.langmem.ours import Memoryd

TEMPLATE = ["memories", "{user_id}"]


@dataclass(frozen=True)
class Create:
    """A new memory, and the name by which later calls refer to it."""

    name: str
    content: str


@dataclass(frozen=True)
class Change:
    name: str
    content: str


@dataclass(frozen=True)
class Drop:
    name: str


Call: TypeAlias = Create | Change | Drop


class Tools:
    """An agent's tools over a store of LangMem's and one of memoryd's, for a new user."""

    _users = count(1)

    def __init__(self, memoryd: Memoryd) -> None:
        self.memoryd = memoryd
        self.store: InMemoryStore = theirs.store()
        self.user = f"user-{next(self._users)}"
        self.namespace = ["memories", self.user]
        self.held: dict[str, str] = {}
        namespace = tuple(TEMPLATE)
        self._manage: BaseTool = create_manage_memory_tool(namespace, store=self.store)
        self._search: BaseTool = create_search_memory_tool(namespace, store=self.store)
        self._ids: dict[str, tuple[str, str]] = {}

    async def agree(self, *wanted: Call) -> None:
        """Call both, and check that they answer the same and hold the same."""
        for call in wanted:
            their_id, our_id = self._ids.get(call.name, (None, None))
            by_theirs = await self._manage.ainvoke(_arguments(call, their_id), self._config)
            by_ours = await self._call_ours("manage_memory", _arguments(call, our_id))
            assert not by_ours["is_error"], by_ours
            self._ids.setdefault(call.name, (by_theirs.split()[-1], by_ours["content"].split()[-1]))
            their_id, our_id = self._ids[call.name]
            assert by_ours["content"].replace(our_id, their_id) == by_theirs
            self._carry_out(call)
        await self.check()

    async def check(self) -> None:
        """Check that each memory is in both, under its own id, and nothing else."""
        in_theirs = await theirs.items(self.store, self.namespace)
        in_ours = await self.memoryd.items(self.namespace)
        for items, side in ((in_theirs, 0), (in_ours, 1)):
            contents = {self._ids[name][side]: {"content": one} for name, one in self.held.items()}
            assert items == contents

    async def search_theirs(self, **arguments: Any) -> list[JSON]:
        found: list[JSON] = json.loads(await self._search.ainvoke(arguments, self._config))
        return found

    async def search_ours(self, **arguments: Any) -> list[JSON]:
        answer = await self._call_ours("search_memory", arguments)
        assert not answer["is_error"], answer
        found: list[JSON] = json.loads(answer["content"])
        assert keys(found) == keys(answer["artifact"])
        return found

    async def _call_ours(self, name: str, arguments: JSON) -> JSON:
        """Return the answer to a model's call of a tool."""
        binding = {"namespace": TEMPLATE, "variables": {"user_id": self.user}}
        response = await self.memoryd.client.post(
            f"/v1/tools/{name}", json={"arguments": arguments, **binding}
        )
        assert response.status_code == 200, response.text
        answer: JSON = response.json()
        return answer

    @property
    def names(self) -> Mapping[str, str]:
        """The names of the memories by the ids that they have on either side."""
        return {id_: name for name, ids in self._ids.items() for id_ in ids}

    @property
    def _config(self) -> Any:
        return {"configurable": {"user_id": self.user}}

    def _carry_out(self, call: Call) -> None:
        if isinstance(call, Drop):
            del self.held[call.name]
        else:
            self.held[call.name] = call.content


def _arguments(call: Call, id_: str | None) -> JSON:
    match call:
        case Create(_, content):
            return {"content": content}
        case Change(_, content):
            return {"content": content, "action": "update", "id": id_}
        case Drop():
            return {"action": "delete", "id": id_}


def keys(found: Sequence[JSON]) -> list[str]:
    return [item["key"] for item in found]
