"""Operations of many tasks, sent together."""

import asyncio
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from langgraph_memoryd.connections import AsyncConnection
from langgraph_memoryd.operations import Operation, parts

Answer: TypeAlias = "asyncio.Future[Any]"


@dataclass(slots=True)
class _Entry:
    """An operation, and the tasks that wait for its result."""

    operation: Operation
    answers: list[Answer] = field(default_factory=list)

    @property
    def is_awaited(self) -> bool:
        return not all(answer.done() for answer in self.answers)

    def settle(self, result: Any) -> None:
        """Give each task the result; none shares what it may change with another."""
        first = True
        for answer in self.answers:
            if answer.done():
                continue
            if isinstance(result, Exception):
                answer.set_exception(result)
            else:
                answer.set_result(result if first else deepcopy(result))
            first = False


class Outbox:
    """What the tasks of one event loop want to be done.

    Operations issued in one tick of the loop travel in one request, in which each has its own
    result or error. Writes go out in the order in which they were issued, one request at a time,
    so those that come meanwhile travel together; reads never wait for writes.
    """

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection
        self._loop = asyncio.get_running_loop()
        self._reads: dict[bytes, _Entry] = {}
        self._writes: list[_Entry] = []
        self._is_scheduled = False
        self._is_writing = False
        self._sending: set[asyncio.Task[None]] = set()

    async def put(self, operation: Operation) -> Any:
        """Return the operation's result; raises its error."""
        answer: Answer = self._loop.create_future()
        if operation.writes:
            self._writes.append(_Entry(operation, [answer]))
        else:
            entry = self._reads.setdefault(operation.body, _Entry(operation))
            entry.answers.append(answer)
        self._schedule()
        return await answer

    async def aclose(self) -> None:
        """Close the connection once everything is answered."""
        while self._sending or self._is_scheduled:
            await asyncio.gather(*self._sending, asyncio.sleep(0))
        await self.connection.aclose()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_scheduled = False
        reads, self._reads = self._reads.values(), {}
        writes: list[_Entry] = []
        if not self._is_writing:
            writes, self._writes = self._writes, []
        entries = [entry for entry in (*reads, *writes) if entry.is_awaited]
        if entries:
            self._is_writing = self._is_writing or bool(writes)
            task = self._loop.create_task(self._send(entries, bool(writes)))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _send(self, entries: list[_Entry], writes: bool) -> None:
        try:
            for part in _parts(entries):
                await self._send_part(part)
        finally:
            if writes:
                self._is_writing = False
                if self._writes:
                    self._schedule()

    async def _send_part(self, entries: list[_Entry]) -> None:
        operations = [entry.operation for entry in entries]
        try:
            results = await self.connection.send(operations, atomic=False)
        except Exception as error:  # noqa: BLE001  # each task raises it
            results = [error] * len(entries)
        for entry, result in zip(entries, results, strict=True):
            entry.settle(result)


def _parts(entries: Iterable[_Entry]) -> Iterable[list[_Entry]]:
    rest = list(entries)
    for part in parts([entry.operation for entry in rest]):
        yield rest[: len(part)]
        del rest[: len(part)]
