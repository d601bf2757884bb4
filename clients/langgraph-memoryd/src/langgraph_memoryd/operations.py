"""LangGraph's operations as memoryd's batch route takes them, and what it returns of them."""

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
class Choices:
    """What a store adds to operations that leave it open; None leaves it to the server."""

    mode: Mode | None
    index_fields: Sequence[str] | None


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation in the form in which it travels."""

    body: bytes
    writes: bool


def encode(op: Op, choices: Choices) -> Operation:
    """Return an operation as JSON; TypeError or ValueError where JSON cannot carry it."""
    return Operation(_to_json(_members(op, choices)).encode(), isinstance(op, PutOp))


def decode(op: Op, result: Any) -> Result:
    """Return what LangGraph expects of an operation."""
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
    """Return the labels of a namespace, which may be wrong; InvalidNamespaceError of a string."""
    if isinstance(namespace, str):  # its characters would pass for labels
        raise InvalidNamespaceError(f"{namespace!r} is a string; give a tuple of labels")
    return list(namespace)


def _item(found: JSON) -> JSON:
    return {
        "namespace": tuple(found["namespace"]),
        "key": found["key"],
        "value": found["value"],
        "created_at": found["created_at"],
        "updated_at": found["updated_at"],
    }


def _members(op: Op, choices: Choices) -> JSON:
    match op:
        case GetOp():
            return {"op": "get", **_address(op), **_given(refresh_ttl=op.refresh_ttl)}
        case PutOp():
            return {**_address(op), **_put(op, choices)}
        case SearchOp():
            return {"op": "search", **_search(op, choices)}
        case ListNamespacesOp():
            return {"op": "list_namespaces", **_listing(op)}
        case _:
            raise TypeError(f"{op!r} is not an operation of a store")


def _given(**members: Any) -> JSON:
    return {name: member for name, member in members.items() if member is not None}


def _address(op: GetOp | PutOp) -> JSON:
    return {"namespace": labels(op.namespace), "key": str(op.key)}


def _put(op: PutOp, choices: Choices) -> JSON:
    if op.value is None:
        return {"op": "delete"}
    if not isinstance(op.value, Mapping):  # dict() would take pairs for one
        raise TypeError(f"a value is a dict, and this a {type(op.value).__name__}")
    index = choices.index_fields if op.index is None else op.index
    members = {"op": "put", "value": dict(op.value), **_given(index=index)}
    ttl: object = op.ttl  # None means for ever; one that is not sent, what the server's default is
    return members if ttl is NOT_PROVIDED else {**members, "ttl": ttl}


def _search(op: SearchOp, choices: Choices) -> JSON:
    return {
        "namespace_prefix": labels(op.namespace_prefix),
        "limit": op.limit,
        "offset": op.offset,
        **_given(query=op.query, filter=op.filter, mode=choices.mode, refresh_ttl=op.refresh_ttl),
    }


def _listing(op: ListNamespacesOp) -> JSON:
    prefix: list[str] | None = []
    suffix: list[str] | None = []
    for condition in op.match_conditions or ():
        if condition.match_type == "prefix":
            prefix = _both(prefix, list(condition.path))
        elif condition.match_type == "suffix":
            suffix = _both(suffix, list(condition.path)[::-1])
        else:
            raise ValueError(f"{condition.match_type!r} is neither prefix nor suffix")
    impossible = prefix is None or suffix is None
    return {
        "limit": 0 if impossible else op.limit,
        "offset": op.offset,
        **_given(prefix=prefix, suffix=suffix and suffix[::-1], max_depth=op.max_depth),
    }


def _both(one: list[str] | None, other: list[str]) -> list[str] | None:
    """Return the path that matches what two paths match; None if nothing does."""
    if one is None:
        return None
    labels = []
    for label, another in zip_longest(one, other, fillvalue="*"):
        if "*" not in {label, another} and label != another:
            return None
        labels.append(another if label == "*" else label)
    return labels
