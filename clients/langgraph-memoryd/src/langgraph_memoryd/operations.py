"""LangGraph's operations and results in the format of memoryd's batch route."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Literal, TypeAlias

from langgraph.store.base import (
    NOT_PROVIDED,
    GetOp,
    InvalidNamespaceError,
    Item,
    ListNamespacesOp,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
)

JSON: TypeAlias = dict[str, Any]
Mode: TypeAlias = Literal["hybrid", "vector", "text"]

_to_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class Defaults:
    """A store's defaults for operations that do not set them; None: the server's."""

    mode: Mode | None
    index_fields: Sequence[str] | None


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation as JSON."""

    body: bytes
    writes: bool


def encode(op: Op, defaults: Defaults) -> Operation:
    """Return an operation as JSON; raises TypeError or ValueError if JSON cannot express it."""
    return Operation(_to_json(_members(op, defaults)).encode(), isinstance(op, PutOp))


def decode(op: Op, result: Any) -> Result:
    """Return a result in LangGraph's types."""
    match op:
        case GetOp():
            return None if result is None else Item(**_item(result))
        case SearchOp():
            return [SearchItem(**_item(found), score=found["score"]) for found in result["items"]]
        case ListNamespacesOp():
            return [tuple(namespace) for namespace in result["namespaces"]]
        case PutOp():
            return None


def labels(namespace: Sequence[str]) -> list[str]:
    """Return a namespace's labels, unchecked; raises InvalidNamespaceError for a string."""
    if isinstance(namespace, str):  # its characters would be taken as labels
        raise InvalidNamespaceError(f"{namespace!r} is a string; use a tuple of labels")
    return list(namespace)


def _item(found: JSON) -> JSON:
    return {
        "namespace": tuple(found["namespace"]),
        "key": found["key"],
        "value": found["value"],
        "created_at": found["created_at"],
        "updated_at": found["updated_at"],
    }


def _members(op: Op, defaults: Defaults) -> JSON:
    match op:
        case GetOp():
            return {"op": "get", **_address(op), **_without_none(refresh_ttl=op.refresh_ttl)}
        case PutOp():
            return {**_address(op), **_put(op, defaults)}
        case SearchOp():
            return {"op": "search", **_search(op, defaults)}
        case ListNamespacesOp():
            return {"op": "list_namespaces", **_listing(op)}
        case _:
            raise TypeError(f"{op!r} is not an operation of a store")


def _without_none(**members: Any) -> JSON:
    return {name: member for name, member in members.items() if member is not None}


def _address(op: GetOp | PutOp) -> JSON:
    return {"namespace": labels(op.namespace), "key": str(op.key)}


def _put(op: PutOp, defaults: Defaults) -> JSON:
    if op.value is None:
        return {"op": "delete"}
    if not isinstance(op.value, Mapping):  # dict() would accept pairs
        raise TypeError(f"a value must be a dict, not {type(op.value).__name__}")
    index = defaults.index_fields if op.index is None else op.index
    members = {"op": "put", "value": dict(op.value), **_without_none(index=index)}
    ttl: object = op.ttl  # None: no expiry; not sent: the server's default
    return members if ttl is NOT_PROVIDED else {**members, "ttl": ttl}


def _search(op: SearchOp, defaults: Defaults) -> JSON:
    return {
        "namespace_prefix": labels(op.namespace_prefix),
        "limit": op.limit,
        "offset": op.offset,
        **_without_none(
            query=op.query, filter=op.filter, mode=defaults.mode, refresh_ttl=op.refresh_ttl
        ),
    }


def _listing(op: ListNamespacesOp) -> JSON:
    prefix: list[str] | None = []
    suffix: list[str] | None = []
    for condition in op.match_conditions or ():
        if condition.match_type == "prefix":
            prefix = _intersect(prefix, list(condition.path))
        elif condition.match_type == "suffix":
            suffix = _intersect(suffix, list(condition.path)[::-1])
        else:
            raise ValueError(f"{condition.match_type!r} is neither prefix nor suffix")
    impossible = prefix is None or suffix is None
    return {
        "limit": 0 if impossible else op.limit,
        "offset": op.offset,
        **_without_none(prefix=prefix, suffix=suffix and suffix[::-1], max_depth=op.max_depth),
    }


def _intersect(one: list[str] | None, other: list[str]) -> list[str] | None:
    """Return the pattern for paths that match both patterns; None if there are none."""
    if one is None:
        return None
    labels = []
    for label, another in zip_longest(one, other, fillvalue="*"):
        if "*" not in {label, another} and label != another:
            return None
        labels.append(another if label == "*" else label)
    return labels
