"""LangMem's tools for agents and memoryd's side by side: the same calls to both."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeAlias

from langchain_core.tools import BaseTool
from pydantic import BaseModel

from tests.langmem import ours, theirs
from tests.langmem.decisions import JSON, plain
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
    content: Any


@dataclass(frozen=True)
class Change:
    name: str
    content: Any


@dataclass(frozen=True)
class Drop:
    name: str


Call: TypeAlias = Create | Change | Drop


class Tools:
    """An agent's tools over a store of LangMem's and one of memoryd's, for a new user."""

    _users = count(1)

    def __init__(
        self, memoryd: Memoryd, schema: type[BaseModel] | None = None, **options: Any
    ) -> None:
        """`options` are of LangMem's `create_manage_memory_tool`."""
        self.memoryd = memoryd
        self.store: InMemoryStore = theirs.store()
        self.user = f"user-{next(self._users)}"
        self.namespace = ["memories", self.user]
        self.held: dict[str, Any] = {}
        self._kind: JSON | None = None if schema is None else ours.kind(schema)
        chosen: JSON = options if schema is None else {**options, "schema": schema}
        self._actions = options.get("actions_permitted")
        self._manage: BaseTool = create_manage_memory_tool(
            tuple(TEMPLATE), store=self.store, **chosen
        )
        self._search: BaseTool = create_search_memory_tool(tuple(TEMPLATE), store=self.store)
        self._ids: dict[str, tuple[str, str]] = {}

    async def agree(self, *wanted: Call) -> None:
        """Let both do something, and check that they say the same and hold what is wanted."""
        for call in wanted:
            their_id, our_id = self._ids.get(call.name, (None, None))
            by_theirs = await self.manage_theirs(**_arguments(call, their_id))
            by_ours = await self.manage_ours(**_arguments(call, our_id))
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
            contents = {key: plain(value["content"]) for key, value in items.items()}
            assert contents == {self._ids[name][side]: one for name, one in self.held.items()}
        extra: JSON = {} if self._kind is None else {"kind": self._kind["name"]}
        for value in in_ours.values():
            assert value == {**extra, "content": value["content"]}

    async def manage_theirs(self, **arguments: Any) -> str:
        answer: str = await self._manage.ainvoke(arguments, self._config)
        return answer

    async def manage_ours(self, **arguments: Any) -> JSON:
        return await self.call_ours("manage_memory", arguments)

    async def search_theirs(self, **arguments: Any) -> list[JSON]:
        found: list[JSON] = json.loads(await self._search.ainvoke(arguments, self._config))
        return found

    async def search_ours(self, **arguments: Any) -> list[JSON]:
        answer = await self.call_ours("search_memory", arguments)
        assert not answer["is_error"], answer
        found: list[JSON] = json.loads(answer["content"])
        assert keys(found) == keys(answer["artifact"])
        return found

    async def call_ours(self, name: str, arguments: JSON | str, **binding: Any) -> JSON:
        """Return the answer to a model's call of a tool."""
        body: JSON = {
            "arguments": arguments,
            "namespace": TEMPLATE,
            "variables": {"user_id": self.user},
            **({} if self._kind is None else {"kind": self._kind}),
            **({} if self._actions is None else {"actions_permitted": list(self._actions)}),
            **binding,
        }
        response = await self.memoryd.client.post(f"/v1/tools/{name}", json=body)
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
            self.held[call.name] = plain(call.content)


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
