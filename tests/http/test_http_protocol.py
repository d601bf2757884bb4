"""Limits of connections, on real sockets, in front of an application that tests control."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from app.http.connection_guard import ConnectionLimits
from app.http.protocol import BoundedProtocol
from app.http.request_context import LoadLimiter, OverloadedError, Slot, long_wait
from tests.support.server import Server

LIMITS = ConnectionLimits(
    head_bytes=4096,
    head_seconds=0.3,
    request_seconds=0.6,
    write_seconds=0.3,
    open_connections=20,
    pipelined=4,
    linger_seconds=0.3,
    sweep_seconds=0.05,
)


class Application:
    """An application that answers when it is released, and records its requests."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.began = 0
        self.bodies: list[bytes] = []
        self.aborted = 0

    async def has_begun(self, requests: int) -> None:
        async with asyncio.timeout(5):
            while self.began < requests:  # noqa: ASYNC110 - requests of one connection each
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert self.began == requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.began += 1
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.aborted += 1
                return
            body, more = body + message.get("body", b""), message["more_body"]
        self.bodies.append(body)
        if scope["path"] == "/wait":
            with long_wait():
                await self.go.wait()
        elif scope["path"] == "/work":
            await self.go.wait()
        elif scope["path"] == "/disconnect":
            self.aborted += (await receive())["type"] == "http.disconnect"
        answer = b"x" * (8 << 20) if scope["path"] == "/big" else b"ok"
        headers = [(b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


class Peer:
    """One connection to the server, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def status(self) -> int:
        return (await self.answer())[0]

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        async with asyncio.timeout(5):
            head = await self.reader.readuntil(b"\r\n\r\n")
            lines = head.decode().split("\r\n")[1:-2]
            headers = dict(line.lower().split(": ", 1) for line in lines)
            body = await self.reader.readexactly(int(headers["content-length"]))
        return int(head.split()[1]), headers, body

    async def closed(self) -> bytes:
        """Return what the server sends before it closes the connection."""
        async with asyncio.timeout(5):
            return await self.reader.read()


class Running:
    """A server with small limits, its application, and the connections to it."""

    def __init__(
        self, port: int, application: Application, protocol: type[BoundedProtocol]
    ) -> None:
        self.port, self.application, self.protocol = port, application, protocol
        self.peers: list[Peer] = []

    async def connect(self, data: bytes = b"") -> Peer:
        peer = Peer(*await asyncio.open_connection("127.0.0.1", self.port))
        self.peers.append(peer)
        peer.send(data)
        return peer


@asynccontextmanager
async def running(limits: ConnectionLimits = LIMITS) -> AsyncIterator[Running]:
    application = Application()
    protocol = type("Bounded", (BoundedProtocol,), {"limits": limits})
    config = uvicorn.Config(
        application, port=0, http=protocol, ws="none", lifespan="off", log_config=None
    )
    server = uvicorn.Server(config)
    server.capture_signals = _no_signals  # type: ignore[method-assign]
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - the server has no event for it
        await asyncio.sleep(0.005)
    started = Running(server.servers[0].sockets[0].getsockname()[1], application, protocol)
    try:
        yield started
    finally:
        application.go.set()
        for peer in started.peers:
            peer.writer.close()
        server.should_exit = True
        await task


@contextmanager
def _no_signals() -> Iterator[None]:
    yield


@pytest.fixture
async def served() -> AsyncIterator[Running]:
    async with running() as started:
        yield started


def get(path: str = "/") -> bytes:
    return f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode()


def assert_problem(answer: tuple[int, dict[str, str], bytes], status: int, code: str) -> None:
    assert answer[0] == status
    assert answer[1]["content-type"] == "application/problem+json"
    assert len(answer[1]["x-request-id"]) == 16
    problem = json.loads(answer[2])
    assert (problem["status"], problem["code"]) == (status, code)


@pytest.mark.parametrize("apart", [False, True])
async def test_a_body_is_read_though_its_client_would_rather_speak_http_2(
    served: Running, apart: bool
) -> None:
    head = (
        b"POST /echo HTTP/1.1\r\nhost: x\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        b"Upgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\ncontent-length: 5\r\n\r\n"
    )
    peer = await served.connect(head if apart else head + b"hello")
    if apart:
        await asyncio.sleep(0.05)
        peer.send(b"hello")
    assert await peer.status() == 200
    peer.send(get())
    assert await peer.status() == 200
    assert served.application.bodies == [b"hello", b""]


class TestHead:
    @pytest.mark.parametrize(
        "head",
        [
            b"GET / HTTP/1.1\r\nhost: x\r\nlong: " + b"x" * 5000 + b"\r\n\r\n",
            b"GET / HTTP/1.1\r\nhost: x\r\nnever-ends: " + b"x" * 5000,
            b"GET / HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 1000 + b"\r\n",
            b"GET /" + b"x" * 5000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
            b"GET / HTTP/1.1\r\n" + b"x" * 5000,
        ],
        ids=["one header", "unfinished header", "many headers", "path", "unfinished name"],
    )
    async def test_one_that_is_too_large_is_refused(self, served: Running, head: bytes) -> None:
        peer = await served.connect(head)
        answer = await peer.answer()
        assert_problem(answer, 431, "headers_too_large")
        assert answer[1]["connection"] == "close"
        assert await peer.closed() == b""
        assert served.application.began == 0

    @pytest.mark.parametrize(
        ("begin", "part"),
        [
            (b"GET / HTTP/1.1\r\nhost: x\r\nlong: ", b"x" * 500),
            (
                b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n",
                b"trailer: " + b"x" * 500 + b"\r\n",
            ),
        ],
        ids=["header", "trailers"],
    )
    async def test_it_is_counted_over_many_packets(
        self, served: Running, begin: bytes, part: bytes
    ) -> None:
        peer = await served.connect(begin)
        for _ in range(10):
            peer.send(part)
            await asyncio.sleep(0.001)
        assert_problem(await peer.answer(), 431, "headers_too_large")

    async def test_each_byte_counts_once(self, served: Running) -> None:
        peer = await served.connect(b"GET /" + b"x" * 1000)
        for part in (b"x" * 1000, b" HTTP/1.1\r\nhost: x\r\nlong: ", b"x" * 900, b"x" * 900):
            await asyncio.sleep(0.005)
            peer.send(part)
        await asyncio.sleep(0.005)
        peer.send(b"\r\n\r\n")
        assert await peer.status() == 200

    async def test_bodies_do_not_count(self, served: Running) -> None:
        body = b"x" * 50_000
        peer = await served.connect(
            b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 50000\r\n\r\n" + body
        )
        assert await peer.status() == 200
        peer.send(get())
        assert await peer.status() == 200
        assert served.application.bodies == [body, b""]

    async def test_a_body_of_tiny_chunks_is_refused(self, served: Running) -> None:
        head = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        peer = await served.connect(head + b"1\r\nx\r\n" * 10_000)
        assert_problem(await peer.answer(), 400, "tiny_chunks")
        ordinary = await served.connect(head + b"50\r\n%b\r\n" % (b"x" * 80) * 2_000)
        ordinary.send(b"0\r\n\r\n")
        assert await ordinary.status() == 200

    async def test_other_protocols_get_a_problem_document(self, served: Running) -> None:
        peer = await served.connect(b"\x16\x03\x01 hello\r\n\r\n")
        assert_problem(await peer.answer(), 400, "invalid_http")


class TestSlowClients:
    async def test_a_request_begins_when_the_answers_before_it_are_taken(self) -> None:
        async with running(replace(LIMITS, write_seconds=10)) as served:
            peer = await served.connect(get("/big") + get("/work"))
            await served.application.has_begun(1)
            served.application.go.set()
            assert len((await peer.answer())[2]) == 8 << 20
            assert await peer.status() == 200
            assert served.application.began == 2

    async def test_a_client_that_is_gone_is_noticed_by_the_request_in_progress(
        self, served: Running
    ) -> None:
        head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n"
        peer = await served.connect(get("/disconnect") + head)
        await served.application.has_begun(1)
        peer.writer.transport.abort()
        async with asyncio.timeout(5):
            while not served.application.aborted:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.01)

    async def test_a_head_must_arrive_in_time(self, served: Running) -> None:
        peer = await served.connect(b"GET / HTTP/1.1\r\n")
        assert_problem(await peer.answer(), 408, "request_timeout")

    async def test_trickling_bytes_win_no_time(self, served: Running) -> None:
        peer = await served.connect(b"GET / HTTP/1.1\r\nx: ")
        for _ in range(40):
            peer.send(b"x")
            await asyncio.sleep(0.01)
        assert await peer.status() == 408

    async def test_a_connection_without_a_request_is_closed(self, served: Running) -> None:
        peer = await served.connect()
        assert await peer.closed() == b""

    async def test_a_body_must_arrive_in_time(self, served: Running) -> None:
        peer = await served.connect(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nx")
        assert_problem(await peer.answer(), 408, "request_timeout")
        await asyncio.sleep(0.02)
        assert served.application.aborted == 1

    async def test_work_that_takes_long_is_not_the_clients_fault(self, served: Running) -> None:
        peer = await served.connect(get("/work"))
        await asyncio.sleep(0.9)
        served.application.go.set()
        assert await peer.status() == 200

    async def test_unread_answers_shut_others_out_for_a_moment_only(self) -> None:
        limits = replace(LIMITS, unsent_bytes=1 << 20, stall_seconds=0.2, write_seconds=30)
        async with running(limits) as served:
            served.application.go.set()
            await served.connect(get("/big"))
            await served.application.has_begun(1)
            shut_out = await served.connect(get("/work"))
            assert await shut_out.status() == 503
            await asyncio.sleep(0.5)
            served_again = await served.connect(get("/work"))
            assert await served_again.status() == 200

    async def test_an_answer_must_be_taken_in_time(self, served: Running) -> None:
        peer = await served.connect(get("/big"))
        await asyncio.sleep(0.7)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await peer.answer()


class TestManyConnections:
    async def test_the_one_that_waits_longest_makes_room(self, served: Running) -> None:
        slow = [await served.connect(b"GET") for _ in range(20)]
        await asyncio.sleep(0.05)
        assert await (await served.connect(get())).status() == 200
        assert await slow[0].closed() == b""
        slow[-1].send(b" / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert await slow[-1].status() == 200

    async def test_one_too_many_gets_503_with_retry_after(self, served: Running) -> None:
        busy = [await served.connect(get("/work")) for _ in range(20)]
        await asyncio.sleep(0.05)
        answer = await (await served.connect(get())).answer()
        assert_problem(answer, 503, "overloaded")
        assert answer[1]["retry-after"] == "1"
        served.application.go.set()
        assert [await peer.status() for peer in busy] == [200] * 20

    async def test_pipelined_requests_are_few(self, served: Running) -> None:
        peer = await served.connect(get("/work") * 3)
        many = await served.connect(get("/work") * 1000)
        assert await many.closed() == b""
        served.application.go.set()
        assert [await peer.status() for _ in range(3)] == [200] * 3
        assert served.application.began <= 4


class TestShedding:
    @pytest.fixture
    async def full(self) -> AsyncIterator[Running]:
        """A server with as many requests in progress as it takes."""
        async with running(replace(LIMITS, open_connections=400)) as started:
            for _ in range(128):
                await started.connect(get("/work"))
            await started.application.has_begun(128)
            yield started

    async def test_a_request_too_many_gets_503_at_once(self, full: Running) -> None:
        peer = await full.connect(get())
        answer = await peer.answer()  # nothing else is answered before `go` is set
        assert_problem(answer, 503, "overloaded")
        assert answer[1]["retry-after"] == "1"
        full.application.go.set()
        await asyncio.sleep(0.1)
        peer.send(get())
        assert await peer.status() == 200

    async def test_the_probe_of_the_process_is_answered(self, full: Running) -> None:
        assert await (await full.connect(get("/healthz"))).status() == 200

    async def test_the_body_of_a_shed_request_is_no_request(self, full: Running) -> None:
        body = get("/smuggled")
        head = f"PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        peer = await full.connect(head)
        assert await peer.status() == 503
        peer.send(body + get("/healthz"))
        assert await peer.status() == 200
        assert full.application.began == 129

    async def test_retrying_at_once_is_answered_after_a_pause(self, full: Running) -> None:
        peer = await full.connect(get())
        assert await peer.status() == 503
        for _ in range(3):
            began = asyncio.get_running_loop().time()
            peer.send(get())
            assert await peer.status() == 503
            assert 0.04 < asyncio.get_running_loop().time() - began < 1

    @pytest.mark.parametrize(
        "waiting", [get("/wait"), b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nx"]
    )
    async def test_a_waiting_request_takes_no_place(self, waiting: bytes) -> None:
        async with running(replace(LIMITS, open_connections=400, request_seconds=5)) as started:
            for _ in range(200):
                await started.connect(waiting)
            await started.application.has_begun(200)
            assert await (await started.connect(get())).status() == 200


def holding(limiter: LoadLimiter, number: int) -> list[Slot]:
    slots = [limiter.admit() for _ in range(number)]
    return [slot for slot in slots if slot is not None]


class TestLoadLimiter:
    @pytest.fixture
    def clock(self) -> list[float]:
        return [100.0]

    @pytest.fixture
    def limiter(self, clock: list[float]) -> LoadLimiter:
        now: Callable[[], float] = lambda: clock[0]  # noqa: E731
        return LoadLimiter(ceiling=40, floor=10, target_seconds=1, long_waits=2, now=now)

    def test_slow_answers_lower_the_limit_and_quick_ones_raise_it(
        self, limiter: LoadLimiter, clock: list[float]
    ) -> None:
        for _ in range(30):
            slots = holding(limiter, 100)
            clock[0] += 2
            for slot in slots:
                slot.release()
        assert limiter.limit == 10
        for _ in range(1000):
            for slot in holding(limiter, 5):
                slot.release()
        assert limiter.limit == 40

    def test_a_slow_request_alone_changes_nothing(
        self, limiter: LoadLimiter, clock: list[float]
    ) -> None:
        (slot,) = holding(limiter, 1)
        clock[0] += 60
        slot.release()
        assert limiter.limit == 40

    def test_time_spent_waiting_does_not_count(
        self, limiter: LoadLimiter, clock: list[float]
    ) -> None:
        slots = holding(limiter, 40)
        with slots[0].suspended():
            clock[0] += 60
            assert limiter.in_progress == 39
        slots[0].release()
        assert (limiter.in_progress, limiter.limit) == (39, 40)

    def test_long_waits_are_few(self, limiter: LoadLimiter) -> None:
        first, second, third = holding(limiter, 3)
        with first.long_wait(), second.long_wait():
            assert limiter.in_progress == 1
            with pytest.raises(OverloadedError), third.long_wait():
                pass
        with third.long_wait():
            assert limiter.in_progress == 2


@pytest.mark.slow
def test_the_server_has_the_limits(server: Server) -> None:
    async def ask() -> None:
        peer = Peer(*await asyncio.open_connection("127.0.0.1", server.port))
        peer.send(b"GET /healthz HTTP/1.1\r\nhost: x\r\nlong: " + b"x" * 70_000)
        assert_problem(await peer.answer(), 431, "headers_too_large")
        peer.writer.close()

    asyncio.run(ask())
    assert "refused: headers too large=1" in server.log.read_text()
