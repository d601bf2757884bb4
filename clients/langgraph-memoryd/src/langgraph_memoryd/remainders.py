"""Reading on where the server's byte limit cut an answer short; LangGraph knows no such limit."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from langgraph_memoryd.errors import MemorydError
from langgraph_memoryd.operations import JSON, Operation

LEFT_OUT = "response_too_large"


def remainders(operations: Sequence[Operation], answers: Sequence[Any]) -> dict[int, Operation]:
    """Return reads for the rest of what was cut short, by the places of the operations.

    There are none if the batch also writes, since they would see what it wrote.
    """
    if any(operation.writes for operation in operations):
        return {}
    pairs = enumerate(zip(operations, answers, strict=True))
    found = {place: _remainder(operation, answer) for place, (operation, answer) in pairs}
    return {place: operation for place, operation in found.items() if operation is not None}


def joined(answers: Sequence[Any], more: Mapping[int, Any]) -> list[Any]:
    """Return the answers, completed by those to the remainders."""
    whole = list(answers)
    for place, rest in more.items():
        whole[place] = _joined(whole[place], rest)
    return whole


def _remainder(operation: Operation, answer: Any) -> Operation | None:
    if isinstance(answer, MemorydError):
        return operation if answer.code == LEFT_OUT else None
    if not isinstance(answer, dict):
        return None
    if answer.get("next_cursor") and "items" in answer:
        return _shorter(operation, len(answer["items"]), {"cursor": answer["next_cursor"]})
    if answer.get("next_offset") and "namespaces" in answer:
        return _shorter(operation, len(answer["namespaces"]), {"offset": answer["next_offset"]})
    return None


def _shorter(operation: Operation, read: int, following: JSON) -> Operation | None:
    members = json.loads(operation.body)
    missing = members["limit"] - read
    members.pop("offset", None)
    rest = {**members, "limit": missing, **following}
    return Operation(json.dumps(rest).encode(), writes=False) if missing > 0 else None


def _joined(answer: Any, rest: Any) -> Any:
    if isinstance(answer, MemorydError) or isinstance(rest, MemorydError):
        return rest
    name = "items" if "items" in answer else "namespaces"
    return {**rest, name: answer[name] + rest[name]}
