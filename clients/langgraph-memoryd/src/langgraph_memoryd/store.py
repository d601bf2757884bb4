"""`MemorydStore`: LangGraph's `BaseStore` over HTTP."""

import asyncio
from collections.abc import Iterable, Sequence
from threading import Lock
from typing import Any, Self

from langgraph.store.base import Op, Result, TTLConfig

from langgraph_memoryd.batches import Batch
from langgraph_memoryd.connections import AsyncConnection, Connection, Target
from langgraph_memoryd.methods import Methods
from langgraph_memoryd.operations import Choices, Mode
from langgraph_memoryd.outbox import Outbox


class MemorydStore(Methods):
    """A store of LangGraph that keeps its items in memoryd.

    Both the blocking and the `a…` methods can be used anywhere, in any event loop. Opened with
    `async with`, the store belongs to that loop, as LangGraph's own asynchronous stores do: calls
    from other threads join the loop's, and blocking calls in the loop raise InvalidStateError.

    `timeout` is in seconds. `mode` is how searches with a query rank: "hybrid" (the server's
    default), "vector" (cosine similarities as scores), "text". `ttl` and `index_fields` are
    LangGraph's TTLConfig and the `fields` of its IndexConfig; what is absent is as the server is
    set.

    Closing is final: a closed store raises RuntimeError. Without it, connections end with their
    event loop, or with the process.
    """

    supports_ttl = True

    def __init__(
        self,
        url: str = "http://localhost:8080",
        *,
        api_key: str | None = None,
        timeout: float = 60.0,  # of each request
        mode: Mode | None = None,
        ttl: TTLConfig | None = None,
        index_fields: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.ttl_config = ttl
        self._choices = Choices(mode, index_fields)
        self._target = Target(url.rstrip("/").removesuffix("/v1"), api_key, timeout)
        self._connection = Connection(self._target)
        self._outboxes: dict[asyncio.AbstractEventLoop, Outbox] = {}
        self._lock = Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = False

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Return each operation's result; reads see the state before the writes.

        All writes are made or, on any error, none; more than 1,000 operations are several requests
        of which this is true.
        """
        self._check_open()
        if self._loop is not None and self._loop.is_running():
            return self._in_loop(self._loop, ops)
        batch = Batch(ops, self._choices)
        answers: list[Any] = []
        for request in batch.requests:
            answers += self._connection.send(request, atomic=len(request) > 1)
        return batch.results(answers)

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Return the same; single operations of several tasks share requests, and no errors."""
        self._check_open()
        batch = Batch(ops, self._choices)
        outbox = await self._outbox()
        if batch.only:
            return batch.results([await outbox.put(batch.only)])
        answers: list[Any] = []
        for request in batch.requests:
            answers += await outbox.send(request)
        return batch.results(answers)

    def _check_open(self) -> None:
        if self._is_closed:
            raise RuntimeError("The store is closed; make another.")

    def _in_loop(self, loop: asyncio.AbstractEventLoop, ops: Iterable[Op]) -> list[Result]:
        if loop is _running_loop():
            raise asyncio.InvalidStateError(
                "The store was opened with `async with` in this event loop, which a blocking call "
                "would hold up; await the method whose name begins with an a, such as aget."
            )
        return asyncio.run_coroutine_threadsafe(self.abatch(list(ops)), loop).result()

    async def _outbox(self) -> Outbox:
        """Return the running loop's outbox; those of closed loops are forgotten."""
        loop = asyncio.get_running_loop()
        if loop not in self._outboxes:
            outbox = await Outbox.open(AsyncConnection(self._target))
            with self._lock:  # other threads have loops, too
                open_ones = {one: box for one, box in self._outboxes.items() if not one.is_closed()}
                self._outboxes = {**open_ones, loop: outbox}
        return self._outboxes[loop]

    def close(self) -> None:
        """Close the store, and the connections of blocking calls."""
        self._is_closed = True
        self._connection.close()

    async def aclose(self) -> None:
        """Close the store once what the running loop has under way is done."""
        self.close()
        outbox = self._outboxes.get(asyncio.get_running_loop())
        if outbox:
            await outbox.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._loop = None
        await self.aclose()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
