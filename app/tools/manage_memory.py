"""The tool `manage_memory`: an agent's model creates, updates and deletes memories itself."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Self
from uuid import uuid4

from app.auth.access import Access, Verb
from app.clock import Clock
from app.db import Database, Row
from app.managers.memories import Kind
from app.managers.shapes import read_value
from app.resources import Resources
from app.schemas import UNSTORABLE
from app.store import repository
from app.store.errors import (
    InvalidIndexPathError,
    InvalidValueError,
    PreconditionFailedError,
)
from app.store.preconditions import Precondition, etag
from app.store.schemas import PutItem, Source
from app.store.service import ItemService
from app.store.writes import Delete
from app.tools.base import Action, Answer, Bound, Definition, Offer, ToolError
from app.tools.contents import content_of, content_schema, next_value, value_of

NAME = "manage_memory"

DEFAULT_KEY = "default"
"""Of the memory that a manager starts with."""

INSTRUCTIONS = """\
Use it of your own accord when:

1. the user tells you of a preference that will last;
2. the user asks you to remember something, or to do things differently from now on;
3. your work has led to something that should be known next time;
4. a memory turns out to be wrong or out of date."""

_ATTEMPTS = 5
"""An update is repeated when another writer came first."""


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
        if not offer.actions:
            return None
        return Definition(NAME, _description(offer), _parameters(offer))

    async def call(self, bound: Bound, arguments: dict[str, Any]) -> Answer:
        """Create, update or delete a memory; raises ToolError, ForbiddenError."""
        action = _action(arguments, bound.actions)
        id_ = _id(arguments)
        if action == "create" and id_ is not None:
            raise ToolError(
                "Nothing was created: a new memory gets its id by itself. "
                "Leave id out, or use the action update."
            )
        if action != "create" and id_ is None:
            raise ToolError(
                f"Nothing was done: to {action} a memory, send its id, "
                "which search_memory shows as key."
            )
        match action:
            case "create":
                key = await self._create(bound, content_of(arguments.get("content"), bound.kind))
                return Answer(f"created memory {key}")
            case "update":
                await self._update(
                    bound, id_ or "", content_of(arguments.get("content"), bound.kind)
                )
                return Answer(f"updated memory {id_}")
            case "delete":
                await self._delete(bound, id_ or "")
                return Answer(f"Deleted memory {id_}")

    async def _create(self, bound: Bound, content: Any) -> str:
        kind = bound.kind
        key = str(uuid4())
        if kind is not None and kind.single:
            await self._check_only(bound, kind)
            key = kind.name
        body = _body(bound, key, value_of(kind, content))
        try:
            await self._put(bound.access, body, Precondition(if_none_match="*"))
        except PreconditionFailedError as error:  # of two calls at once, the later one
            raise _exists(key) from error
        return key

    async def _update(self, bound: Bound, key: str, content: Any) -> None:
        namespace = bound.access.locate(bound.namespace, Verb.WRITE)
        for _ in range(_ATTEMPTS):
            row = (await self._rows(bound.access, namespace, [key])).get(key)
            if row is None:
                raise _unknown(key)
            value = next_value(key, json.loads(row["value"]), bound.kind, content)
            body = _body(bound, key, value, row)
            with suppress(PreconditionFailedError):  # overtaken since it was read
                await self._put(bound.access, body, Precondition(if_match=etag(row["version"])))
                return
        raise ToolError(f"Nothing was changed: others keep changing memory {key}. Try again.")

    async def _delete(self, bound: Bound, key: str) -> None:
        address = (bound.access.locate(bound.namespace, Verb.DELETE), key)
        if UNSTORABLE.search(key):
            raise _unknown(key)
        try:
            await self._items.apply(bound.access, [Delete(address, Precondition(if_match="*"))])
        except PreconditionFailedError as error:
            raise _unknown(key) from error

    async def _check_only(self, bound: Bound, kind: Kind) -> None:
        """Raise ToolError where a kind of one document has it already."""
        namespace = bound.access.locate(bound.namespace, Verb.WRITE)
        rows = await self._rows(bound.access, namespace, [kind.name, DEFAULT_KEY])
        for key, row in rows.items():
            if key == kind.name or read_value(json.loads(row["value"]))[1] == kind.name:
                raise _exists(key)

    async def _put(self, access: Access, body: PutItem, precondition: Precondition) -> None:
        try:
            put = await self._items.prepare_put(access, body)
        except (InvalidValueError, InvalidIndexPathError) as error:
            raise ToolError(f"Nothing was written: {error.detail}") from error
        await self._items.apply(access, [replace(put, precondition=precondition)])

    async def _rows(self, access: Access, namespace: str, keys: Sequence[str]) -> dict[str, Row]:
        addresses = [(namespace, key) for key in keys if not UNSTORABLE.search(key)]
        async with self._database.connection(access.root) as connection:
            rows = await repository.find_many(connection, addresses, self._clock.now())
        return {key: row for (_, key), row in rows.items()}


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
    raise ToolError(f"Nothing was done: action is {shown}; it must be {_either(permitted)}.")


def _id(arguments: dict[str, Any]) -> str | None:
    id_ = arguments.get("id")
    if id_ is None or id_ == "":
        return None
    if not isinstance(id_, str):
        shown = json.dumps(id_)[:100]
        raise ToolError(f"Nothing was done: id is {shown}; send the key that search_memory shows.")
    return id_


def _unknown(key: str) -> ToolError:
    shown = json.dumps(key)[:100]
    return ToolError(
        f"Nothing was done: there is no memory {shown} here. Use search_memory to find the one "
        "you mean, and send its key as id."
    )


def _exists(key: str) -> ToolError:
    return ToolError(
        f"Nothing was created: there is one already, and only one is kept. Update it: its id is "
        f"{key}, and content must be the whole of it, so look at it with search_memory before."
    )


def _either(actions: Sequence[str]) -> str:
    *most, last = actions
    return f"{', '.join(most)} or {last}" if most else last


def _description(offer: Offer) -> str:
    verbs = _either(offer.actions).capitalize()
    lines = [f"{verbs} a memory, which lasts beyond this conversation."]
    if offer.actions != ("create",):
        lines.append(
            "To update or delete one, send its id: the key that search_memory shows. "
            "An update replaces the whole content."
        )
    if "create" in offer.actions:
        lines.append("A new memory gets its id by itself; send none.")
    kind = offer.kind
    if kind is not None and kind.description:
        lines.append(f"A memory here is a {kind.name}: {kind.description}")
    if kind is not None and kind.single:
        lines.append(f"There is only one {kind.name}; once it exists, update it.")
    return "\n".join([*lines, offer.instructions or INSTRUCTIONS])


def _parameters(offer: Offer) -> dict[str, Any]:
    """Return LangMem's parameters, of which those that are always needed are `required`."""
    required = []
    if "delete" not in offer.actions:
        required.append("content")
    if "create" not in offer.actions:
        required.append("id")
    content, definitions = content_schema(offer.kind, needed="content" in required)
    default = "create" if "create" in offer.actions else offer.actions[0]
    properties = {
        "content": content,
        "action": {"type": "string", "enum": list(offer.actions), "default": default},
        "id": {
            "type": "string",
            "description": "The key of the memory to update or delete, as search_memory shows it.",
        },
    }
    if "id" not in required:
        properties["id"] |= {"type": ["string", "null"], "default": None}
    schema = {"type": "object", "properties": properties, "required": required}
    return schema | ({"$defs": definitions} if definitions else {})
