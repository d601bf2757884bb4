"""Attacks with connections, and with replies of models."""

import asyncio
import socket
import sys
from contextlib import suppress

from benchmarks.stall.bodies import fill
from benchmarks.stall.schemas import MESSAGES, count_answers
from benchmarks.stall.target import Attack, Target

MIB = 1 << 20
CROWD_SECONDS = 20


async def model(target: Target) -> str:
    """Submit eight jobs at once that call the model."""
    body = {"messages": MESSAGES, "namespace": ["attack"]}
    wait = {"prefer": "wait=60"}
    return count_answers(
        await asyncio.gather(
            *(target.send("POST", "/v1/jobs/extract", json=body, headers=wait) for _ in range(8))
        )
    )


async def headers(target: Target) -> str:
    """Send 64 MiB of headers, eight times at once."""

    async def one() -> str:
        reader, writer = await asyncio.open_connection(*target.address)
        with suppress(ConnectionError):
            writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\nlong: ")
            for _ in range(64):
                writer.write(b"x" * MIB)
                await writer.drain()
            writer.write(b"\r\n\r\n")
        return await status(reader)

    return count_answers(await asyncio.gather(*(one() for _ in range(8))))


async def status(reader: asyncio.StreamReader) -> str:
    """Return the status of an answer, or how the request failed."""
    try:
        async with asyncio.timeout(30):
            line = await reader.readline()
    except (OSError, TimeoutError) as error:
        return type(error).__name__
    return line[9:12].decode() or "closed"


async def slow(target: Target) -> str:
    """Open 1,100 connections, and send one byte of a request on each every second."""

    async def one() -> str:
        try:
            reader, writer = await asyncio.open_connection(*target.address)
        except OSError as error:
            return type(error).__name__
        answer = asyncio.create_task(status(reader))
        with suppress(ConnectionError):
            for byte in b"GET /v1/store/items?namespa":
                if not answer.done():
                    writer.write(bytes([byte]))
                    await asyncio.sleep(1)
        writer.close()
        return await answer

    return count_answers(await asyncio.gather(*(one() for _ in range(1_100))))


async def idle(target: Target) -> str:
    """Open 6,000 connections and send nothing."""

    async def one() -> str:
        try:
            reader, writer = await asyncio.open_connection(*target.address)
        except OSError as error:
            return type(error).__name__
        answer = await status(reader)
        writer.close()
        return answer

    return count_answers(await asyncio.gather(*(one() for _ in range(6_000))))


async def unread(target: Target) -> str:
    """Request large pages on 300 connections, and read none."""
    await fill(target, 12)
    body = b'{"namespace_prefix":["attack","big"],"limit":1000}'
    key = target.client.headers["x-api-key"].encode()
    request = (
        b"POST /v1/store/items/search HTTP/1.1\r\nhost: x\r\nx-api-key: " + key + b"\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    )
    connections = []
    for _ in range(300):
        connection = socket.create_connection(target.address)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(request)
        connections.append(connection)
    await asyncio.sleep(15)
    for connection in connections:
        connection.close()
    return "nothing was read"


async def crowd(target: Target, clients: int, *options: str) -> str:
    """Let many clients read items, each as fast as it can or, if patient, honoring Retry-After."""
    command = [sys.executable, "-m", "benchmarks.stall.crowd", target.url, "--kind", "get"]
    command += ["--clients", str(clients), "--seconds", str(CROWD_SECONDS), *options]
    command += ["--key", target.client.headers["x-api-key"], "--brief"]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    return said.decode().strip()


async def impatient(target: Target) -> str:
    """2,500 clients that ignore Retry-After."""
    return await crowd(target, 2_500)


async def patient(target: Target) -> str:
    """2,500 clients that honor it."""
    return await crowd(target, 2_500, "--patient")


async def five_hundred(target: Target) -> str:
    """500 clients that ignore it."""
    return await crowd(target, 500)


async def nothing(_target: Target) -> str:
    """No attack, for comparison."""
    await asyncio.sleep(5)
    return ""


ATTACKS = (
    Attack("endless model reply", model, model="endless"),
    Attack("gzip-bombed model reply", model, model="gzip"),
    Attack("64 MiB of headers", headers),
    Attack("1,100 slow connections", slow),
    Attack("6,000 idle connections", idle),
    Attack("300 unread answers", unread),
    Attack("500 clients", five_hundred),
    Attack("2,500 clients", impatient),
    Attack("2,500 patient clients", patient),
)

NOTHING = Attack("none", nothing)
