"""A caller's operations, split into requests, and their results in the original order."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from langgraph.store.base import Op, Result

from langgraph_memoryd.errors import MemorydError
from langgraph_memoryd.operations import Defaults, Operation, decode, encode

MAX_OPERATIONS = 1000
"""Maximum operations in one batch of the server."""

MAX_BYTES = 6 << 20
"""Maximum size of one batch; the server takes 8 MiB by default."""

MAX_JSON_VALUES = 75_000
"""Maximum JSON values in one batch; the server takes 100,000."""


class Batch:
    """Operations that one caller runs together.

    If they do not fit into one request, they are split into several, with the reads first, so that
    reads see the state before the writes.
    """

    def __init__(self, ops: Iterable[Op], defaults: Defaults) -> None:
        self._ops = list(ops)
        operations = [encode(op, defaults) for op in self._ops]
        self._order = list(range(len(operations)))
        self.requests = list(split(operations))
        if len(self.requests) > 1:
            self._order.sort(key=lambda place: operations[place].writes)
            self.requests = list(split(operations[place] for place in self._order))

    @property
    def only(self) -> Operation | None:
        """The operation, if there is only one."""
        return self.requests[0][0] if len(self._ops) == 1 else None

    def results(self, answers: Sequence[Any]) -> list[Result]:
        """Return the results in the order of the operations; raises a lone operation's error."""
        results: list[Result] = [None] * len(self._ops)
        for place, answer in zip(self._order, answers, strict=True):
            if isinstance(answer, MemorydError):
                raise answer
            results[place] = decode(self._ops[place], answer)
        return results


def split(operations: Iterable[Operation]) -> Iterator[list[Operation]]:
    """Split operations into runs that each fit into one request."""
    part: list[Operation] = []
    size = values = 0
    for operation in operations:
        size += len(operation.body)
        values += _count_json_values(operation.body)
        is_full = len(part) == MAX_OPERATIONS or size > MAX_BYTES or values > MAX_JSON_VALUES
        if part and is_full:
            yield part
            part, size, values = [], len(operation.body), _count_json_values(operation.body)
        part.append(operation)
    if part:
        yield part


def _count_json_values(body: bytes) -> int:
    """Return an upper bound of the JSON values in a body."""
    return sum(body.count(mark) for mark in (b",", b"[", b"{"))
