"""A server of hostile models.

python -m benchmarks.stall.model PORT endless|gzip|nested|edits|large
"""

import asyncio
import json
import re
import sys
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

CHUNK = b" " * (1 << 20)
ENDLESS_BYTES = 4 << 30
NESTING = 45

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"


def nested(depth: int) -> Any:
    """Return content on which an exponential schema doubles at every level."""
    value: Any = {"end": True}
    for _ in range(depth):
        value = {"p": value}
    return value


def reply(name: str, arguments: Any) -> bytes:
    """Return a chat completion that calls a tool."""
    function = {"name": name, "arguments": json.dumps(arguments)}
    call = {"id": "call_1", "type": "function", "function": function}
    choice = {
        "index": 0,
        "finish_reason": "tool_calls",
        "message": {"role": "assistant", "content": None, "tool_calls": [call]},
    }
    body = {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "bench",
        "choices": [choice],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
    return json.dumps(body).encode()


def answer(kind: str, request: bytes) -> bytes:
    """Return the body of a valid completion."""
    names = re.findall(rb'"name": ?"((?:insert|update)_[a-z_]+)"', request)
    insert = next((name.decode() for name in names if name.startswith(b"insert")), "insert_memory")
    if kind == "edits":
        edits = [{"op": "add", "path": f"/n{n}", "value": n} for n in range(20_000)]
        return reply("update_memory", {"id": "m1", "edits": edits})
    content = {"content": "ramen " * 100000} if kind == "large" else nested(NESTING)
    return reply(insert, {"content": content, "message_ids": ["1"]})


def gzipped() -> Iterator[bytes]:
    """Yield gzipped chunks: a valid beginning of JSON, then blanks, compressed a thousandfold."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    for _ in range(ENDLESS_BYTES // len(CHUNK)):
        if data := packer.compress(CHUNK):
            yield data
    yield packer.flush()


async def serve(kind: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one connection's requests."""
    with suppress(ConnectionError, asyncio.IncompleteReadError):
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = re.search(rb"content-length: *(\d+)", head.lower())
            body = await reader.readexactly(int(length[1]) if length else 0)
            if kind == "endless":
                writer.write(_HEAD + b"connection: close\r\n\r\n")
                for _ in range(ENDLESS_BYTES // len(CHUNK)):
                    writer.write(CHUNK)
                    await writer.drain()
                break
            if kind == "gzip":
                writer.write(_HEAD + b"content-encoding: gzip\r\nconnection: close\r\n\r\n")
                for data in gzipped():
                    writer.write(data)
                    await writer.drain()
                break
            content = answer(kind, body)
            writer.write(_HEAD + b"content-length: %d\r\n\r\n" % len(content) + content)
            await writer.drain()
    writer.close()


async def main(port: int, kind: str) -> None:
    """Serve until the process ends."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await serve(kind, reader, writer)

    async with await asyncio.start_server(connected, "127.0.0.1", port, limit=1 << 24) as started:
        await started.serve_forever()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
