"""Operations of several tasks, sent together."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Self, TypeAlias, TypeVar

from langgraph_memoryd.batches import split
from langgraph_memoryd.connections import AsyncConnection
from langgraph_memoryd.operations import Operation

Answer: TypeAlias = "asyncio.Future[Any]"
Sent = TypeVar("Sent")


@dataclass(slots=True)
class _Entry:
    """An operation and the tasks waiting for its result."""

    operation: Operation
    answers: list[Answer] = field(default_factory=list)

    @property
    def is_awaited(self) -> bool:
        return not all(answer.done() for answer in self.answers)

    def settle(self, result: Any) -> None:
        """Give each task the result, as a copy of its own."""
        first = True
        for answer in self.answers:
            if answer.done():
                continue
            if isinstance(result, Exception):
                answer.set_exception(result)
            else:
                answer.set_result(result if first else deepcopy(result))
            first = False

    def abandon(self) -> None:
        """Cancel the tasks that have no result yet."""
        for answer in self.answers:
            answer.cancel()


class Outbox:
    """Collects the operations of one event loop's tasks into requests.

    Reads issued in one tick of the loop share a request, and so do writes; each has its own result
    or error. Writes are sent in the order in which they were issued, one request at a time, so
    writes issued during a request share the next one. Reads never wait for writes.
    """

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._reads: dict[bytes, _Entry] = {}
        self._writes: list[_Entry] = []
        self._is_scheduled = False
        self._is_writing = False
        self._sending: set[asyncio.Task[Any]] = set()
        self._closer = self._close_with_loop()

    @classmethod
    async def open(cls, connection: AsyncConnection) -> Self:
        """Return an outbox that closes at the end of its event loop."""
        outbox = cls(connection)
        await anext(outbox._closer)
        return outbox

    async def _close_with_loop(self) -> AsyncGenerator[None]:
        """Close the connection when the loop ends and closes its asynchronous generators."""
        try:
            yield
        finally:
            await self.aclose()

    async def put(self, operation: Operation) -> Any:
        """Return the operation's result; raises its error."""
        answer: Answer = self._loop.create_future()
        if operation.writes:
            self._writes.append(_Entry(operation, [answer]))
        else:
            entry = self._reads.setdefault(operation.body, _Entry(operation))
            entry.answers.append(answer)
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._flush)
        return await answer

    async def send(self, operations: Sequence[Operation]) -> list[Any]:
        """Send operations in a separate request; return the results, or raise the first error."""
        return await self._start(self._connection.send(operations, atomic=True))

    async def aclose(self) -> None:
        """Close the connection after all operations have been answered."""
        while self._is_scheduled or self._sending:
            await (asyncio.wait(self._sending) if self._sending else asyncio.sleep(0))
        await self._connection.aclose()

    def _start(self, sending: Coroutine[Any, Any, Sent]) -> "asyncio.Task[Sent]":
        task = self._loop.create_task(sending)
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)
        return task

    def _flush(self) -> None:
        self._is_scheduled = False
        if self._reads:
            reads, self._reads = self._reads, {}
            _ = self._start(self._send(reads.values()))
        if self._writes and not self._is_writing:
            self._is_writing = True
            _ = self._start(self._write())

    async def _write(self) -> None:
        try:
            while self._writes:
                writes, self._writes = self._writes, []
                await self._send(writes)
        finally:
            self._is_writing = False

    async def _send(self, entries: Iterable[_Entry]) -> None:
        awaited = [entry for entry in entries if entry.is_awaited]
        try:
            for part in _split(awaited):
                await self._send_part(part)
        finally:
            for entry in awaited:
                entry.abandon()

    async def _send_part(self, entries: list[_Entry]) -> None:
        operations = [entry.operation for entry in entries]
        try:
            results = await self._connection.send(operations, atomic=False)
        except Exception as error:  # noqa: BLE001  # each task raises it
            results = [error] * len(entries)
        for entry, result in zip(entries, results, strict=True):
            entry.settle(result)


def _split(entries: Iterable[_Entry]) -> Iterable[list[_Entry]]:
    rest = list(entries)
    for part in split([entry.operation for entry in rest]):
        yield rest[: len(part)]
        del rest[: len(part)]
