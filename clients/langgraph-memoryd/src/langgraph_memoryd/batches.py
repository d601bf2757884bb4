"""A caller's operations, cut into requests, and their results put back in order."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from langgraph.store.base import Op, Result

from langgraph_memoryd.errors import MemorydError
from langgraph_memoryd.operations import Choices, Operation, decode, encode

MAX_OPERATIONS = 1000
"""What the server takes in one batch."""

MAX_BYTES = 8 << 20
"""Of one batch; the server takes 32 MiB by default."""


class Batch:
    """Operations that one caller wants done together.

    What one request cannot hold is sent in several, the reads first: they see the state before
    the writes.
    """

    def __init__(self, ops: Iterable[Op], choices: Choices) -> None:
        self._ops = list(ops)
        operations = [encode(op, choices) for op in self._ops]
        self._order = list(range(len(operations)))
        self.requests = list(parts(operations))
        if len(self.requests) > 1:
            self._order.sort(key=lambda place: operations[place].writes)
            self.requests = list(parts(operations[place] for place in self._order))

    @property
    def only(self) -> Operation | None:
        """The operation, if there is but one."""
        return self.requests[0][0] if len(self._ops) == 1 else None

    def results(self, answers: Sequence[Any]) -> list[Result]:
        """Return the results in the order of the operations; raises the error of a lone one."""
        results: list[Result] = [None] * len(self._ops)
        for place, answer in zip(self._order, answers, strict=True):
            if isinstance(answer, MemorydError):
                raise answer
            results[place] = decode(self._ops[place], answer)
        return results


def parts(operations: Iterable[Operation]) -> Iterator[list[Operation]]:
    """Cut operations into runs that one request may hold."""
    part: list[Operation] = []
    size = 0
    for operation in operations:
        size += len(operation.body)
        if part and (len(part) == MAX_OPERATIONS or size > MAX_BYTES):
            yield part
            part, size = [], len(operation.body)
        part.append(operation)
    if part:
        yield part
