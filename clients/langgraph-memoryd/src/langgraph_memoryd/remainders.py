"""Further reads if the server's byte limit cut a response short; LangGraph has no such limit."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from langgraph_memoryd.errors import MemorydError
from langgraph_memoryd.operations import JSON, Operation

RESPONSE_TOO_LARGE = "response_too_large"


def find_remainders(
    operations: Sequence[Operation], answers: Sequence[Any]
) -> dict[int, Operation]:
    """Return reads for the missing rest of each shortened result, by the operation's index.

    There are none if the batch also writes, because they would see its writes.
    """
    if any(operation.writes for operation in operations):
        return {}
    pairs = enumerate(zip(operations, answers, strict=True))
    found = {place: _find_remainder(operation, answer) for place, (operation, answer) in pairs}
    return {place: operation for place, operation in found.items() if operation is not None}


def join_remainders(answers: Sequence[Any], more: Mapping[int, Any]) -> list[Any]:
    """Return the results, completed with those of the remainders."""
    whole = list(answers)
    for place, rest in more.items():
        whole[place] = _join(whole[place], rest)
    return whole


def _find_remainder(operation: Operation, answer: Any) -> Operation | None:
    if isinstance(answer, MemorydError):
        return operation if answer.code == RESPONSE_TOO_LARGE else None
    if not isinstance(answer, dict):
        return None
    if answer.get("next_cursor") and "items" in answer:
        return _read_rest(operation, len(answer["items"]), {"cursor": answer["next_cursor"]})
    if answer.get("next_offset") and "namespaces" in answer:
        return _read_rest(operation, len(answer["namespaces"]), {"offset": answer["next_offset"]})
    return None


def _read_rest(operation: Operation, read: int, following: JSON) -> Operation | None:
    members = json.loads(operation.body)
    missing = members["limit"] - read
    members.pop("offset", None)
    rest = {**members, "limit": missing, **following}
    return Operation(json.dumps(rest).encode(), writes=False) if missing > 0 else None


def _join(answer: Any, rest: Any) -> Any:
    if isinstance(answer, MemorydError) or isinstance(rest, MemorydError):
        return rest
    name = "items" if "items" in answer else "namespaces"
    return {**rest, name: answer[name] + rest[name]}
