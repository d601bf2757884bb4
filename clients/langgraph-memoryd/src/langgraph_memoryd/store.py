"""`MemorydStore`: LangGraph's `BaseStore` over HTTP."""

import asyncio
from collections.abc import Iterable, Sequence
from threading import Lock
from typing import Any, Self

from langgraph.store.base import Op, Result, TTLConfig

from langgraph_memoryd.batches import Batch
from langgraph_memoryd.connections import AsyncConnection, Connection, Target
from langgraph_memoryd.methods import StoreMethods
from langgraph_memoryd.operations import Defaults, Mode
from langgraph_memoryd.outbox import Outbox


class MemorydStore(StoreMethods):
    """A LangGraph store that keeps its items in memoryd.

    The blocking and the `a…` methods can be used in any thread and event loop. A store opened with
    `async with` belongs to that loop, like LangGraph's own asynchronous stores: calls from other
    threads join the loop's, and blocking calls in the loop raise InvalidStateError.

    `timeout` is in seconds. `mode` is the ranking of searches with a query: "hybrid" (the server's
    default), "vector" (cosine similarities as scores), or "text". `ttl` and `index_fields` are
    LangGraph's TTLConfig and the `fields` of its IndexConfig; the server's settings apply to
    options that are absent.

    A closed store raises RuntimeError. A store need not be closed: connections end with their event
    loop, or with the process.
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
        self._defaults = Defaults(mode, index_fields)
        self._target = Target(url.rstrip("/").removesuffix("/v1"), api_key, timeout)
        self._connection = Connection(self._target)
        self._outboxes: dict[asyncio.AbstractEventLoop, Outbox] = {}
        self._lock = Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = False

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Return each operation's result; reads see the state before the writes.

        Either all writes are made or, on any error, none. More than 1,000 operations are split into
        several requests, for each of which this holds.
        """
        self._check_open()
        if self._loop is not None and self._loop.is_running():
            return self._run_in_loop(self._loop, ops)
        batch = Batch(ops, self._defaults)
        answers: list[Any] = []
        for request in batch.requests:
            answers += self._connection.send(request, atomic=len(request) > 1)
        return batch.results(answers)

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Like `batch`; single operations of several tasks share requests, but not errors."""
        self._check_open()
        batch = Batch(ops, self._defaults)
        outbox = await self._outbox()
        if batch.only:
            return batch.results([await outbox.put(batch.only)])
        answers: list[Any] = []
        for request in batch.requests:
            answers += await outbox.send(request)
        return batch.results(answers)

    def _check_open(self) -> None:
        if self._is_closed:
            raise RuntimeError("The store is closed; create another one.")

    def _run_in_loop(self, loop: asyncio.AbstractEventLoop, ops: Iterable[Op]) -> list[Result]:
        if loop is _find_running_loop():
            raise asyncio.InvalidStateError(
                "The store was opened with `async with` in this event loop, which a blocking call "
                "would block; await the asynchronous method, such as aget."
            )
        return asyncio.run_coroutine_threadsafe(self.abatch(list(ops)), loop).result()

    async def _outbox(self) -> Outbox:
        """Return the running loop's outbox; remove those of closed loops."""
        loop = asyncio.get_running_loop()
        if loop not in self._outboxes:
            outbox = await Outbox.open(AsyncConnection(self._target))
            with self._lock:  # other threads have loops, too
                still_open = {
                    one: box for one, box in self._outboxes.items() if not one.is_closed()
                }
                self._outboxes = {**still_open, loop: outbox}
        return self._outboxes[loop]

    def close(self) -> None:
        """Close the store and the connections of blocking calls."""
        self._is_closed = True
        self._connection.close()

    async def aclose(self) -> None:
        """Close the store after the running loop's operations have been answered."""
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


def _find_running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
