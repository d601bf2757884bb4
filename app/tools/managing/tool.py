"""Carrying out what an agent's model asks of its memories."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Self
from uuid import uuid4

from app.auth.access import Access, Verb
from app.clock import Clock
from app.conversations.types import Kind
from app.conversations.value_format import read_value
from app.db.database import Database, Row
from app.db.optimistic import OvertakenError, TooManyConflictsError, retry_optimistically
from app.http.conditional import (
    ABSENT,
    PRESENT,
    UNCONDITIONAL,
    Precondition,
    PreconditionFailedError,
)
from app.indexing.errors import InvalidIndexPathError
from app.resources import Resources
from app.store import repository
from app.store.errors import InvalidValueError
from app.store.schemas import PutItem, Source
from app.store.service import ItemService
from app.store.writes import Address, Delete
from app.tools.arguments import either
from app.tools.base import Action, Answer, Bound, Definition, Offer, ToolError
from app.tools.managing.contents import content_of, next_value, value_of
from app.tools.managing.definition import NAME, definition

DEFAULT_KEY = "default"
"""Of the memory that a manager starts with."""


class ManageMemory:
    """Writes one memory at a time, always in the namespace that the application named."""

    name = NAME

    def __init__(self, items: ItemService, database: Database, clock: Clock) -> None:
        self._items = items
        self._database = database
        self._clock = clock

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make it from a process's resources."""
        return cls(ItemService.build(resources), resources.database, resources.clock)

    def definition(self, offer: Offer) -> Definition | None:
        """Return how the tool is offered; None where none of its actions is left."""
        return definition(offer)

    async def call(self, bound: Bound, arguments: dict[str, Any]) -> Answer:
        """Create, update or delete a memory; raises ToolError, ForbiddenError."""
        action = _action(arguments, bound.actions)
        id_ = _id(arguments)
        if action == "create":
            if id_ is not None:
                raise ToolError(
                    "Nothing was created: a new memory gets its id by itself. "
                    "Leave id out, or use the action update."
                )
            key = await self._create(bound, await _content(bound, arguments))
            return Answer(f"created memory {key}")
        if id_ is None:
            raise ToolError(
                f"Nothing was done: to {action} a memory, send its id, "
                "which search_memory shows as key."
            )
        if action == "delete":
            await self._delete(bound, id_)
            return Answer(f"Deleted memory {id_}")
        await self._update(bound, id_, await _content(bound, arguments))
        return Answer(f"updated memory {id_}")

    async def _create(self, bound: Bound, content: Any) -> str:
        kind = bound.kind
        key = str(uuid4())
        if kind is not None and kind.singleton:
            await self._check_only(bound, kind)
            key = kind.name
        body = _body(bound, key, value_of(kind, content))
        try:
            await self._put(bound.access, body, ABSENT)
        except PreconditionFailedError as error:  # of two calls at once, the later one
            raise _exists(key, bound.actions) from error
        return key

    async def _update(self, bound: Bound, key: str, content: Any) -> None:
        bound.access.locate(bound.namespace, Verb.READ)  # the answer depends on what is there
        address = (bound.access.locate(bound.namespace, Verb.WRITE), key)
        try:
            await retry_optimistically(partial(self._replace, bound, address, content))
        except TooManyConflictsError as error:
            raise ToolError(
                f"Nothing was changed: others keep changing memory {key}. Try again."
            ) from error

    async def _replace(self, bound: Bound, address: Address, content: Any) -> None:
        namespace, key = address
        row = (await self._rows(bound.access, namespace, [key])).get(key)
        if row is None:
            raise _unknown(bound.namespace, key)
        value = next_value(key, json.loads(row["value"]), bound.kind, content)
        body = _body(bound, key, value, row)
        try:
            await self._put(bound.access, body, Precondition.at(row["version"]))
        except PreconditionFailedError as error:
            raise OvertakenError from error

    async def _delete(self, bound: Bound, key: str) -> None:
        address = (bound.access.locate(bound.namespace, Verb.DELETE), key)
        # Without `read`, nothing tells the caller whether the memory was there.
        may_read = bound.access.allows(bound.namespace, Verb.READ)
        there = PRESENT if may_read else UNCONDITIONAL
        try:
            await self._items.apply(bound.access, [Delete(address, there)])
        except PreconditionFailedError as error:
            raise _unknown(bound.namespace, key) from error

    async def _check_only(self, bound: Bound, kind: Kind) -> None:
        """Raise ToolError where a kind of one document has it already."""
        bound.access.locate(bound.namespace, Verb.READ)
        namespace = bound.access.locate(bound.namespace, Verb.WRITE)
        rows = await self._rows(bound.access, namespace, [kind.name, DEFAULT_KEY])
        for key, row in rows.items():
            if key == kind.name or read_value(json.loads(row["value"]))[1] == kind.name:
                raise _exists(key, bound.actions)

    async def _put(self, access: Access, body: PutItem, precondition: Precondition) -> None:
        try:
            put = await self._items.prepare_put(access, body)
        except (InvalidValueError, InvalidIndexPathError) as error:
            raise ToolError(f"Nothing was written: {error.detail}") from error
        await self._items.apply(access, [replace(put, precondition=precondition)])

    async def _rows(self, access: Access, namespace: str, keys: Sequence[str]) -> dict[str, Row]:
        addresses = [(namespace, key) for key in keys]
        async with self._database.connection(access.root) as connection:
            rows = await repository.find_many(connection, addresses, self._clock.now())
        return {key: row for (_, key), row in rows.items()}


async def _content(bound: Bound, arguments: dict[str, Any]) -> Any:
    """Return a valid content; raises ToolError."""
    return await asyncio.to_thread(content_of, arguments.get("content"), bound.kind)


def _body(bound: Bound, key: str, value: dict[str, Any], row: Row | None = None) -> PutItem:
    """Return an item's next state; all but its words, it keeps."""
    source = Source.model_validate(
        {"tool": NAME} | ({} if bound.manager is None else {"manager": bound.manager})
    )
    members: dict[str, Any] = {}
    if row is not None:
        paths, ttl = row["index_paths"], row["ttl"]
        kept = ("importance", "pinned", "valid_from", "valid_to")
        members = {name: row[name] for name in kept} | {
            "index": None if paths is None else json.loads(paths),
            "ttl_seconds": None if ttl is None else ttl.total_seconds(),
        }
    elif bound.ttl_seconds is not None:
        members = {"ttl_seconds": bound.ttl_seconds}
    return PutItem.model_construct(  # of what was checked when it came in
        namespace=bound.namespace, key=key, value=value, source=source, **members
    )


def _action(arguments: dict[str, Any], permitted: Sequence[Action]) -> Action:
    wanted = arguments.get("action")
    if wanted is None:
        return permitted[0] if "create" not in permitted else "create"
    for action in permitted:
        if action == wanted:
            return action
    shown = json.dumps(wanted)[:100]
    raise ToolError(f"Nothing was done: action is {shown}; it must be {either(permitted)}.")


def _id(arguments: dict[str, Any]) -> str | None:
    id_ = arguments.get("id")
    if id_ is None or id_ == "":
        return None
    if not isinstance(id_, str):
        shown = json.dumps(id_)[:100]
        raise ToolError(f"Nothing was done: id is {shown}; send the key that search_memory shows.")
    return id_


def _unknown(namespace: list[str], key: str) -> ToolError:
    return ToolError(
        f"Nothing was done: there is no memory {json.dumps(key)[:100]} in the namespace "
        f"{json.dumps(namespace, ensure_ascii=False)}, and those of other namespaces can only be "
        "read. Use search_memory to find the one you mean, and send its key as id."
    )


def _exists(key: str, permitted: Sequence[Action]) -> ToolError:
    then = (
        f"Update it: its id is {key}, and content must be the whole of it, so look at it with "
        "search_memory before."
        if "update" in permitted
        else "Leave it as it is."
    )
    return ToolError(f"Nothing was created: there is one already, and only one is kept. {then}")
