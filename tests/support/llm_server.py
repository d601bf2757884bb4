"""A scripted language model that speaks the HTTP of Anthropic and both of OpenAI's.

In tests: `async with llm_server() as llm:`. As a process, answering by rules:
`python -m tests.support.llm_server --port N --script FILE.json [--delay-ms N]`, where the file
holds `[{"when": {"tool": NAME, "contains": TEXT}, "reply": {"text": TEXT} | {"calls":
[{"name": NAME, "arguments": {…}}]}}, …]`: `tool` is one that was offered, `contains` is sought in
the text of the last user message, `result` in what the last calls of tools were answered, `system`
in the system text; any may be absent, and the first rule that fits answers.
Where a call's `id` is `the one with TEXT`, the id of the shown memory that has it is sent.
"""

import argparse
import asyncio
import json
import re
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Literal

from app.providers.llm import Message, Tool
from tests.support.llm_wire import (
    read_anthropic,
    read_chat,
    read_responses,
    write_anthropic,
    write_chat,
    write_responses,
)

JSON = dict[str, Any]
_READ = {
    "/messages": read_anthropic,
    "/chat/completions": read_chat,
    "/responses": read_responses,
}
_WRITE = {
    "/messages": write_anthropic,
    "/chat/completions": write_chat,
    "/responses": write_responses,
}


@dataclass(frozen=True)
class Usage:
    """The tokens a reply reports; `input_tokens` include the cached ones."""

    input_tokens: int = 100
    output_tokens: int = 20
    cached_tokens: int = 0


@dataclass(frozen=True)
class Reply:
    """What the model answers; arguments given as a string are sent as they are."""

    text: str = ""
    calls: tuple[tuple[str, JSON | str], ...] = ()
    stop: Literal["end", "tools", "length", "refusal"] = "end"
    usage: Usage = Usage()
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    delay: float = 0
    half: bool = False


def says(text: str, usage: Usage = Usage()) -> Reply:
    return Reply(text, usage=usage)


def calls(*wanted: tuple[str, JSON | str], text: str = "", usage: Usage = Usage()) -> Reply:
    return Reply(text, wanted, stop="tools", usage=usage)


def refuses(text: str = "I cannot help with that.") -> Reply:
    return Reply(text, stop="refusal")


def cut(text: str) -> Reply:
    return Reply(text, stop="length")


def fails(status: int, message: str = "scripted", retry_after: float | None = None) -> Reply:
    error = {"type": "error", "error": {"type": "scripted", "message": message}}
    headers = {} if retry_after is None else {"retry-after": f"{retry_after:g}"}
    return Reply(status=status, headers=headers, body=json.dumps(error).encode())


def hangs(seconds: float) -> Reply:
    return Reply("late", delay=seconds)


def cuts_connection() -> Reply:
    return Reply("half of this is sent", half=True)


def garbage(body: bytes = b"<html>Welcome</html>", content_type: str = "text/html") -> Reply:
    return Reply(body=body, headers={"content-type": content_type})


@dataclass(frozen=True)
class Received:
    """A request in words that are no provider's, beside its `body` and `headers` as sent."""

    provider: Literal["anthropic", "openai"]
    model: str
    system: str
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...]
    tool_choice: str
    max_tokens: int
    body: JSON
    headers: dict[str, str]
    path: str

    @property
    def last_user_text(self) -> str:
        return next((m.text for m in reversed(self.messages) if m.role == "user"), "")


class LLMServer:
    """Answers with what `script` holds; when it is empty, with what `respond` makes of it."""

    def __init__(self) -> None:
        self.script: deque[Reply] = deque()
        self.respond: Callable[[Received], Reply] = lambda _: says("Nothing to do.")
        self.requests: list[Received] = []
        self.in_flight = 0
        self.max_in_flight = 0
        self.url = ""
        self._ids = count(1)

    @property
    def base_url_anthropic(self) -> str:
        return self.url

    @property
    def base_url_openai(self) -> str:
        return f"{self.url}/v1"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request and close the connection."""
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            received = await _read(reader)
            if received is not None:
                self.requests.append(received)
                reply = self.script.popleft() if self.script else self.respond(received)
                await asyncio.sleep(reply.delay)
                writer.write(self._answer(received, reply))
        finally:
            self.in_flight -= 1
            writer.close()

    def _answer(self, received: Received, reply: Reply) -> bytes:
        body = reply.body
        if body is None:
            answer = _WRITE[_route(received.path)](reply, received.model, next(self._ids))
            body = json.dumps(answer).encode()
        headers = {
            "content-type": "application/json",
            "content-length": str(len(body)),
            "connection": "close",
            **reply.headers,
        }
        lines = [f"HTTP/1.1 {reply.status} Scripted", *(f"{k}: {v}" for k, v in headers.items())]
        sent = body[: len(body) // 2] if reply.half else body
        return "\r\n".join([*lines, "", ""]).encode() + sent


async def _read(reader: asyncio.StreamReader) -> Received | None:
    """Return the request; None when the client went away before it was whole."""
    try:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        headers = {name.lower(): value for name, _, value in (x.partition(": ") for x in lines)}
        body = json.loads(await reader.readexactly(int(headers["content-length"])))
    except asyncio.IncompleteReadError:
        return None
    path = first.split()[1]
    route = _route(path)
    provider: Literal["anthropic", "openai"] = "anthropic" if route == "/messages" else "openai"
    return Received(provider, *_READ[route](body), body, headers, path)


def _route(path: str) -> str:
    """Return the end of a path, which is the same at every address."""
    found = [route for route in _READ if path.partition("?")[0].endswith(route)]
    assert found, f"nothing is scripted for {path}"
    return found[0]


@asynccontextmanager
async def llm_server(port: int = 0) -> AsyncIterator[LLMServer]:
    """Run a model on a free port, or on the given one."""
    scripted = LLMServer()
    server = await asyncio.start_server(scripted.handle, "127.0.0.1", port, limit=1 << 20)
    scripted.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield scripted


def by_rules(rules: list[JSON], delay: float = 0) -> Callable[[Received], Reply]:
    """Return a `respond` that follows the rules of a script file."""

    def respond(received: Received) -> Reply:
        fitting = (rule["reply"] for rule in rules if _fits(rule.get("when", {}), received))
        reply: JSON = next(fitting, {"text": "Nothing to do."})
        wanted = tuple(
            (call["name"], _with_id(call["arguments"], received)) for call in reply.get("calls", [])
        )
        stop: Literal["tools", "end"] = "tools" if wanted else "end"
        return Reply(reply.get("text", ""), wanted, stop, delay=delay)

    return respond


def _fits(when: JSON, received: Received) -> bool:
    offered = {tool.name for tool in received.tools}
    contained = when.get("contains", "") in received.last_user_text
    last = received.messages[-1:]
    results = "\n".join(result.content for message in last for result in message.results)
    answered = when.get("result", "") in results
    instructed = when.get("system", "") in received.system
    is_offered = "tool" not in when or when["tool"] in offered
    return contained and answered and instructed and is_offered


def _with_id(arguments: JSON, received: Received) -> JSON:
    sought = str(arguments.get("id", "")).removeprefix("the one with ")
    if sought == arguments.get("id", ""):
        return arguments
    shown = re.findall(r'<memory id="(\w+)"[^>]*>(.*)</memory>', received.last_user_text)
    return {**arguments, "id": next((id_ for id_, text in shown if sought in text), sought)}


async def _serve(port: int, rules: list[JSON], delay: float) -> None:
    async with llm_server(port) as server:
        server.respond = by_rules(rules, delay)
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description="A scripted language model.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--script", type=Path, required=True)
    parser.add_argument("--delay-ms", type=float, default=0)
    options = parser.parse_args()
    rules = json.loads(options.script.read_text())
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(options.port, rules, options.delay_ms / 1000))


if __name__ == "__main__":
    main()
