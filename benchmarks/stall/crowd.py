"""A crowd of clients that send requests one after another, each on its own connection.

It runs in a process of its own, so that its work does not affect other measurements.

python -m benchmarks.stall.crowd URL [--clients N] [--seconds N] [--kind get|put|search] [--patient]
"""

import argparse
import asyncio
import json
import random
import time
from collections import defaultdict
from typing import cast
from urllib.parse import urlsplit

import uvloop
from typing_extensions import override

from benchmarks.measure import table

Latencies = dict[str, list[float]]


def request(kind: str, host: str, key: str) -> bytes:
    """Return one request of a kind, with random contents."""
    more = f"x-api-key: {key}\r\n" if key else ""
    number = random.randrange(1000)  # noqa: S311  # a load, no secret
    if kind == "get":
        line = f"GET /v1/store/items?namespace=crowd.u{number}&key=food"
        return f"{line} HTTP/1.1\r\nhost: {host}\r\n{more}\r\n".encode()
    method, path, body = {
        "put": (
            "PUT",
            "/v1/store/items",
            {
                "namespace": ["crowd", f"u{number}"],
                "key": "food",
                "value": {"text": f"Guest {number} loves ramen and long walks."},
            },
        ),
        "search": (
            "POST",
            "/v1/store/items/search",
            {"namespace_prefix": ["crowd", f"u{number}"], "query": "which food"},
        ),
    }[kind]
    content = json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
    return f"{head}{more}content-length: {len(content)}\r\n\r\n".encode() + content


class Client(asyncio.Protocol):
    """One client, which sends its next request after the answer to the last."""

    def __init__(self, crowd: "Crowd") -> None:
        self._crowd = crowd
        self._answer = b""
        self._sent = 0.0

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def _send(self) -> None:
        self._answer = b""
        self._sent = time.perf_counter()
        self._transport.write(self._crowd.request())

    @override
    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, blank, body = self._answer.partition(b"\r\n\r\n")
        if not blank:
            return
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line[15:])
        if len(body) < length:
            return
        status = head[9:12].decode()
        self._crowd.latencies[status].append(time.perf_counter() - self._sent)
        if self._crowd.over:
            self._transport.close()
        elif status == "503" and self._crowd.patient:
            self._crowd.loop.call_later(1, self._send)
        elif b"connection: close" not in head.lower():
            self._send()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self._crowd.latencies["reset"].append(time.perf_counter() - self._sent)
        if not self._crowd.over:
            self._crowd.arrive()


class Crowd:
    """Many clients, and the times of their answers by status."""

    def __init__(self, url: str, kind: str, key: str, *, patient: bool) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._kind = kind
        self._key = key
        self.patient = patient
        self.latencies: Latencies = defaultdict(list)
        self.over = False
        self.loop = asyncio.get_running_loop()
        self._connecting: set[asyncio.Task[None]] = set()

    def request(self) -> bytes:
        """Return a client's next request."""
        return request(self._kind, self._host, self._key)

    def arrive(self) -> None:
        """Connect one client."""
        task = self.loop.create_task(self._connect())
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self) -> None:
        began = time.perf_counter()
        try:
            await self.loop.create_connection(lambda: Client(self), self._host, self._port)
        except OSError:
            self.latencies["no connection"].append(time.perf_counter() - began)
            await asyncio.sleep(1)
            if not self.over:
                self.arrive()

    async def stay(self, clients: int, seconds: float) -> None:
        """Send requests from all clients until the time is over."""
        for _ in range(clients):
            self.arrive()
        await asyncio.sleep(seconds)
        self.over = True
        await asyncio.sleep(3)


def percentile(values: list[float], share: float) -> float:
    """Return a quantile in milliseconds."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)] * 1000


def summary(latencies: Latencies, seconds: float) -> str:
    """Return a table: a row for each status."""
    rows = [["answer", "number", "/s", "p50 ms", "p99 ms", "max ms"]]
    for status, values in sorted(latencies.items()):
        shares = [f"{percentile(values, share):.0f}" for share in (0.5, 0.99, 1)]
        rows.append([status, str(len(values)), f"{len(values) / seconds:.0f}", *shares])
    return table(rows)


def brief(latencies: Latencies, _seconds: float) -> str:
    """Return the count and the times of each status."""
    return ", ".join(
        f"{len(values)} x {status} (p99 {percentile(values, 0.99):.0f} ms)"
        for status, values in sorted(latencies.items())
    )


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stall.crowd", description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--clients", type=int, default=2500)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--kind", choices=["get", "put", "search"], default="put")
    parser.add_argument("--key", default="", help="an API key")
    parser.add_argument("--brief", action="store_true", help="one line instead of a table")
    parser.add_argument("--patient", action="store_true", help="wait a second after each 503")
    return parser.parse_args()


async def main(given: argparse.Namespace) -> None:
    """Run the crowd and print its results."""
    crowd = Crowd(given.url, given.kind, given.key, patient=given.patient)
    await crowd.stay(given.clients, given.seconds)
    print((brief if given.brief else summary)(crowd.latencies, given.seconds))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(arguments()))
