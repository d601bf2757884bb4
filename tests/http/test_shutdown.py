"""Requests that a shutdown interrupts."""

import asyncio
import json

from starlette.types import Message, Receive, Scope, Send

from app.http.middleware import RequestContext


async def test_an_interrupted_request_is_answered_with_503() -> None:
    sent: list[Message] = []

    async def waits(_scope: Scope, _receive: Receive, _send: Send) -> None:
        await asyncio.sleep(60)

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    request = asyncio.create_task(RequestContext(waits)(scope, receive, send))
    await asyncio.sleep(0)
    request.cancel()
    await request
    assert sent[0]["status"] == 503
    assert dict(sent[0]["headers"])[b"retry-after"] == b"5"
    assert json.loads(sent[1]["body"])["code"] == "shutting_down"
