"""The outbox: answers reach their tasks, and writes keep their order."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from langgraph_memoryd.connections import AsyncConnection
from langgraph_memoryd.operations import Operation
from langgraph_memoryd.outbox import Outbox


class RefusedError(Exception):
    """The server refuses an operation."""


@dataclass
class Echo:
    """A connection that returns each operation's body and refuses some."""

    requests: list[list[Operation]] = field(default_factory=list)
    writing: int = 0

    async def send(self, operations: Sequence[Operation], *, atomic: bool) -> list[Any]:
        assert not atomic
        writes = any(operation.writes for operation in operations)
        assert not (writes and self.writing), "writes were sent concurrently"
        self.requests.append(list(operations))
        self.writing += writes
        for _ in range(len(self.requests) % 4):
            await asyncio.sleep(0)
        self.writing -= writes
        return [
            RefusedError(one.body) if one.body.endswith(b"bad") else [one.body]
            for one in operations
        ]

    async def aclose(self) -> None:
        assert self.writing == 0


@dataclass(frozen=True)
class Caller:
    """A task: the ticks before its operation, and whether it is cancelled."""

    ticks: int
    operation: Operation
    is_cancelled: bool


BODIES = st.sampled_from([b"a", b"b", b"c", b"bad"])
CALLERS = st.builds(
    Caller, st.integers(0, 6), st.builds(Operation, BODIES, st.booleans()), st.booleans()
)


async def ask(outbox: Outbox, caller: Caller, issued: list[Operation]) -> Any:
    for _ in range(caller.ticks):
        await asyncio.sleep(0)
    issued.append(caller.operation)
    return await outbox.put(caller.operation)


async def asked(callers: list[Caller]) -> tuple[Echo, list[Operation], list[Any]]:
    echo = Echo()
    outbox = Outbox(cast(AsyncConnection, echo))
    issued: list[Operation] = []
    tasks = [asyncio.create_task(ask(outbox, caller, issued)) for caller in callers]
    await asyncio.sleep(0)
    for task, caller in zip(tasks, callers, strict=True):
        if caller.is_cancelled:
            task.cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    await outbox.aclose()
    return echo, issued, answers


@given(st.lists(CALLERS, max_size=12))
def test_every_task_gets_its_answer_and_writes_keep_their_order(callers: list[Caller]) -> None:
    echo, issued, answers = asyncio.run(asked(callers))
    for caller, answer in zip(callers, answers, strict=True):
        if caller.is_cancelled:
            assert isinstance(answer, asyncio.CancelledError)
        elif caller.operation.body == b"bad":
            assert isinstance(answer, RefusedError)
        else:
            assert answer == [caller.operation.body]
    lists = [id(answer) for answer in answers if isinstance(answer, list)]
    assert len(set(lists)) == len(lists), "two tasks could change each other's answer"
    sent = [operation for request in echo.requests for operation in request]
    written = iter(operation for operation in issued if operation.writes)
    assert all(operation in written for operation in sent if operation.writes)
