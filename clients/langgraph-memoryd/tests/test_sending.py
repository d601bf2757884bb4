"""Requests and their timing, with a server that a test scripts."""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import pytest
from langgraph.store.base import GetOp, PutOp
from langgraph_memoryd import InvalidInputError, InvalidLabelsError, MemorydError, MemorydStore
from langgraph_memoryd.batches import MAX_OPERATIONS

from tests.support.server import free_port

ITEM = {
    "namespace": ["a"],
    "key": "k",
    "value": {"list": [1]},
    "created_at": "2026-01-01T12:00:00+00:00",
    "updated_at": "2026-01-01T12:00:00Z",
}

GOT = {"op": "get", "item": ITEM}


def problem(status: int, code: str, field: str = "limit") -> dict[str, Any]:
    errors = [{"field": field, "detail": "is wrong"}]
    return {"status": status, "code": code, "detail": f"{field} is wrong", "errors": errors}


@dataclass
class Scripted:
    """A server that sends the replies in `script`, and then empty results."""

    script: deque[Any] = field(default_factory=deque)
    received: list[Any] = field(default_factory=list)
    held: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await self._head(reader):
            length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
            request = json.loads(await reader.readexactly(length))
            connection = writer.get_extra_info("peername")
            self.received.append(request | {"head": head, "connection": connection})
            await self.held.wait()
            reply = self.script.popleft() if self.script else None
            if reply == "hang up":
                break
            status, answer = reply or (200, {"results": [{}] * len(request["operations"])})
            body = json.dumps(answer).encode()
            lines = [f"HTTP/1.1 {status} Scripted", f"content-length: {len(body)}"]
            writer.write("\r\n".join([*lines, "x-request-id: r1", "", ""]).encode() + body)
        writer.close()

    async def _head(self, reader: asyncio.StreamReader) -> str:
        try:
            return (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        except (asyncio.IncompleteReadError, ConnectionError):
            return ""

    def operations(self) -> list[list[str]]:
        """The operations of each request, in short form."""
        return [
            [f"{one['op']} {one['key']}" for one in request["operations"]]
            for request in self.received
        ]


@pytest.fixture
async def scripted() -> AsyncIterator[Scripted]:
    scripted = Scripted()
    scripted.held.set()
    server = await asyncio.start_server(scripted.handle, "127.0.0.1", 0, limit=1 << 22)
    scripted.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield scripted
    server.close()


@pytest.fixture
async def store(scripted: Scripted) -> AsyncIterator[MemorydStore]:
    store = MemorydStore(scripted.url, api_key="mk_1", timeout=5)
    yield store
    await store.aclose()


A = ("a",)


async def test_reads_of_one_tick_share_a_request_and_so_do_writes(
    store: MemorydStore, scripted: Scripted
) -> None:
    await asyncio.gather(
        *(store.aget(A, "1"), store.aput(A, "2", {}), store.adelete(A, "3"), store.aget(A, "4"))
    )
    assert sorted(scripted.operations()) == [["get 1", "get 4"], ["put 2", "delete 3"]]
    assert [request["atomic"] for request in scripted.received] == [False, False]
    assert "x-api-key: mk_1" in scripted.received[0]["head"]


async def test_equal_reads_are_sent_once_and_answered_separately(
    store: MemorydStore, scripted: Scripted
) -> None:
    scripted.script.append((200, {"results": [GOT]}))
    one, other = await asyncio.gather(store.aget(A, "k"), store.aget(A, "k"))
    assert scripted.operations() == [["get k"]]
    assert one == other
    assert one
    assert other
    one.value["list"].append(2)
    assert other.value == {"list": [1]}


async def test_a_task_does_not_get_another_ones_error(
    store: MemorydStore, scripted: Scripted
) -> None:
    wrong = problem(422, "invalid_request", "namespace[0]")
    scripted.script.append((200, {"results": [GOT, {"op": "get", "problem": wrong}]}))
    good, bad = await asyncio.gather(
        store.aget(A, "k"), store.aget(("",), "k"), return_exceptions=True
    )
    assert good.value == {"list": [1]}  # type: ignore[union-attr]
    assert isinstance(bad, InvalidLabelsError)


async def test_an_unserializable_value_never_leaves_its_task(
    store: MemorydStore, scripted: Scripted
) -> None:
    bad, _ = await asyncio.gather(
        store.aput(A, "1", {"x": object()}), store.aput(A, "2", {}), return_exceptions=True
    )
    assert isinstance(bad, TypeError)
    assert scripted.operations() == [["put 2"]]


async def test_a_batch_is_an_atomic_request_of_its_own(
    store: MemorydStore, scripted: Scripted
) -> None:
    batch = store.abatch([PutOp(A, "1", {}), GetOp(A, "2")])
    await asyncio.gather(batch, store.aget(A, "3"))
    assert sorted(scripted.operations()) == [["get 3"], ["put 1", "get 2"]]
    assert sorted(request["atomic"] for request in scripted.received) == [False, True]


async def test_many_operations_are_several_requests(
    store: MemorydStore, scripted: Scripted
) -> None:
    ops = [PutOp(A, str(number), {}) for number in range(MAX_OPERATIONS)]
    await store.abatch([*ops, GetOp(A, "k")])
    assert [len(one) for one in scripted.operations()] == [MAX_OPERATIONS, 1]
    assert scripted.operations()[0][0] == "get k"
    scripted.received.clear()
    await asyncio.gather(*(store.aget(A, str(number)) for number in range(MAX_OPERATIONS + 1)))
    assert [len(one) for one in scripted.operations()] == [MAX_OPERATIONS, 1]


async def test_nothing_to_do_is_not_sent(store: MemorydStore, scripted: Scripted) -> None:
    assert await store.abatch([]) == []
    assert store.batch([]) == []
    assert scripted.received == []


async def test_writes_wait_for_earlier_ones_and_reads_do_not(
    store: MemorydStore, scripted: Scripted
) -> None:
    scripted.held.clear()
    first = asyncio.create_task(store.aput(A, "1", {}))
    await until(lambda: len(scripted.received) == 1)
    later = [asyncio.create_task(store.aput(A, str(number), {})) for number in (2, 3)]
    reading = asyncio.create_task(store.aget(A, "4"))
    await until(lambda: len(scripted.received) == 2)
    assert scripted.operations() == [["put 1"], ["get 4"]]
    scripted.held.set()
    await asyncio.gather(first, *later, reading)
    assert scripted.operations() == [["put 1"], ["get 4"], ["put 2", "put 3"]]


async def test_connections_are_limited(store: MemorydStore, scripted: Scripted) -> None:
    scripted.held.clear()
    batch = [GetOp(A, "1"), GetOp(A, "2")]
    asking = [asyncio.create_task(store.abatch(batch)) for _ in range(120)]
    await until(lambda: len(scripted.received) == 100)
    await asyncio.sleep(0.05)
    assert len(scripted.received) == 100
    scripted.held.set()
    assert await asyncio.gather(*asking) == [[None, None]] * 120


async def test_a_task_cancelled_in_time_sends_nothing(
    store: MemorydStore, scripted: Scripted
) -> None:
    cancelled = asyncio.create_task(store.aput(A, "1", {}))
    other = asyncio.create_task(store.aput(A, "2", {}))
    asyncio.get_running_loop().call_soon(cancelled.cancel)
    await asyncio.wait([cancelled, other])
    assert cancelled.cancelled()
    assert scripted.operations() in ([["put 2"]], [["put 1", "put 2"]])
    await store.aput(A, "3", {})
    assert scripted.operations()[-1] == ["put 3"]


async def test_closing_waits_for_pending_calls(scripted: Scripted) -> None:
    scripted.held.clear()
    async with MemorydStore(scripted.url) as store:
        writing = asyncio.create_task(store.aput(A, "1", {}))
        batch = asyncio.create_task(store.abatch([PutOp(A, "1", {}), GetOp(A, "2")]))
        await until(lambda: len(scripted.received) == 2)
        asyncio.get_running_loop().call_later(0.05, scripted.held.set)
    assert writing.done()
    assert batch.done()
    assert await batch == [None, None]


async def test_a_cancelled_close_leaves_requests_alone(scripted: Scripted) -> None:
    store = MemorydStore(scripted.url)
    scripted.held.clear()
    writing = asyncio.create_task(store.aput(A, "1", {}))
    await until(lambda: scripted.received)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(store.aclose(), 0.01)
    scripted.held.set()
    async with asyncio.timeout(5):
        await writing
        await store.aclose()


async def test_cancelling_the_sender_cancels_pending_calls(
    store: MemorydStore, scripted: Scripted
) -> None:
    scripted.held.clear()
    others = asyncio.all_tasks()
    writing = asyncio.create_task(store.aput(A, "1", {}))
    await until(lambda: scripted.received)
    for task in asyncio.all_tasks() - others - {writing}:
        if "Outbox" in repr(task):
            task.cancel()
    await asyncio.wait([writing], timeout=5)
    assert writing.cancelled()
    scripted.held.set()


async def test_a_closed_store_raises_an_error(scripted: Scripted) -> None:
    async with MemorydStore(scripted.url) as one:
        await one.aget(A, "k")
    with MemorydStore(scripted.url) as other:
        await asyncio.to_thread(other.get, A, "k")
    scripted.received.clear()
    for store in (one, other):
        with pytest.raises(RuntimeError, match="The store is closed"):
            await store.aget(A, "k")
        with pytest.raises(RuntimeError, match="The store is closed"):
            store.get(A, "k")
        await store.aclose()
    assert scripted.received == []


async def test_blocking_calls_do_not_wait_for_a_stopped_loop(scripted: Scripted) -> None:
    store = MemorydStore(scripted.url)
    await asyncio.to_thread(asyncio.run, store.__aenter__())
    async with asyncio.timeout(5):
        assert await asyncio.to_thread(store.get, A, "k") is None
    await store.aclose()


async def test_a_forked_process_has_connections_of_its_own(
    store: MemorydStore, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    await asyncio.to_thread(store.get, A, "1")
    with closing(store._connection._client):  # noqa: SLF001  # the parent's
        monkeypatch.setattr("langgraph_memoryd.connections.getpid", lambda: -1)
        for key in ("2", "3"):
            await asyncio.to_thread(store.get, A, key)
    parents, *childs = [request["connection"] for request in scripted.received]
    assert childs[0] == childs[1] != parents


def test_a_bad_key_or_address_is_refused() -> None:
    for key in ("mk_…", "mk_1\n", "mk 1"):
        with pytest.raises(ValueError, match="The key has characters that no key has") as raised:
            MemorydStore(api_key=key)
        assert key not in str(raised.value)
    with pytest.raises(ValueError, match="'localhost:8080' is not a URL"):
        MemorydStore("localhost:8080")


async def test_a_read_is_repeated_when_the_connection_breaks(
    store: MemorydStore, scripted: Scripted
) -> None:
    scripted.script.extend(["hang up", (200, {"results": [GOT]}), "hang up"])
    assert await store.aget(A, "k") is not None
    assert await asyncio.to_thread(store.get, A, "k") is None
    assert scripted.operations() == [["get k"]] * 4


async def test_a_write_is_not_repeated_when_the_connection_breaks(
    store: MemorydStore, scripted: Scripted
) -> None:
    scripted.script.extend(["hang up"] * 2)
    with pytest.raises(ConnectionError, match="did not answer"):
        await store.aput(A, "k", {})
    with pytest.raises(ConnectionError):
        await asyncio.to_thread(store.put, A, "k", {})
    assert scripted.operations() == [["put k"]] * 2


async def test_an_unreachable_server_is_a_connection_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("langgraph_memoryd.connections.PAUSES", (0, 0))
    store = MemorydStore(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(ConnectionError, match=r"memoryd at http://127\.0\.0\.1:\d+ did not"):
        await store.aput(A, "k", {})
    await store.aclose()


async def test_no_answer_in_time_is_a_timeout(scripted: Scripted) -> None:
    store = MemorydStore(scripted.url, timeout=0.1)
    scripted.held.clear()
    with pytest.raises(TimeoutError, match="did not answer"):
        await store.aget(A, "k")
    scripted.held.set()
    await store.aclose()
    assert len(scripted.received) == 1


async def test_problems_are_errors_with_their_details(
    store: MemorydStore, scripted: Scripted
) -> None:
    answers = [(401, "unauthenticated"), (409, "too_many_conflicts"), (503, "unavailable")]
    scripted.script.extend((status, problem(status, code)) for status, code in answers)
    for status, code in answers:
        with pytest.raises(MemorydError, match="limit is wrong") as raised:
            await store.aget(A, "k")
        error = raised.value
        assert not isinstance(error, ValueError)
        assert (error.status, error.code, error.request_id) == (status, code, "r1")
        assert error.errors[0]["field"] == "limit"


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        ("limit", InvalidInputError),
        ("operations[3].namespace_prefix[1]", InvalidLabelsError),
        ("operations[0].suffix", InvalidLabelsError),
        ("value.namespace", InvalidInputError),
    ],
)
async def test_the_field_determines_the_error(
    store: MemorydStore, scripted: Scripted, wrong: str, kind: type[MemorydError]
) -> None:
    scripted.script.append((422, problem(422, "invalid_request", wrong)))
    with pytest.raises(InvalidInputError, match="is wrong") as raised:
        await store.abatch([GetOp(A, "1"), GetOp(A, "2")])
    assert type(raised.value) is kind
    assert isinstance(raised.value, ValueError)


@pytest.mark.parametrize("answer", [[], {"results": "x"}, {"status": 502}])
async def test_an_answer_of_something_else_is_an_error(
    store: MemorydStore, scripted: Scripted, answer: Any
) -> None:
    scripted.script.append((200, answer))
    with pytest.raises(MemorydError, match=r"something other than memoryd's JSON") as raised:
        await store.aget(A, "k")
    assert (raised.value.code, raised.value.status) == ("not_memoryd", 200)


async def test_the_address_of_langgraphs_sdk_is_accepted(scripted: Scripted) -> None:
    async with MemorydStore(f"{scripted.url}/v1/") as store:
        assert await store.aget(A, "k") is None
    assert scripted.received[0]["head"].startswith("post /v1/store/batch ")


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  # what it waits for happens elsewhere
            await asyncio.sleep(0.005)
