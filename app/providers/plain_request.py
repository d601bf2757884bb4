"""The plainest form of a request: turns of text alone, which every model server takes back.

It has no calls, no results, nothing verbatim, no empty turn, and users and assistants alternate.
"""

import json
from collections.abc import Sequence
from dataclasses import replace

from app.providers.llm import Message, Request, ToolCall


def to_plain_request(request: Request) -> Request:
    """Return a request whose calls and results are text; the request itself if it has none."""
    messages: list[Message] = []
    calls: Sequence[ToolCall] = ()
    for message in request.messages:
        messages.append(Message(message.role, _text(message, calls)))
        calls = message.calls
    return replace(request, messages=tuple(messages))


def _text(message: Message, calls: Sequence[ToolCall]) -> str:
    """Return a turn as text; `calls` are those that its results answer."""
    if not message.calls and not message.results:
        return message.text
    names = {call.id: f"{number} ({call.name})" for number, call in enumerate(calls, start=1)}
    called = [_render_call(call) for call in message.calls]
    results = [
        f"Result of call {names.get(result.call_id, result.call_id)}: {result.content}"
        for result in message.results
    ]
    return "\n\n".join(part for part in (*results, message.text.strip(), *called) if part)


def _render_call(call: ToolCall) -> str:
    arguments = call.raw if call.arguments is None else call.arguments
    return json.dumps({"name": call.name, "arguments": arguments}, ensure_ascii=False)


def with_tools_in_words(request: Request) -> Request:
    """Return a plain request that describes its tools, for models that take none."""
    if not request.tools:
        return to_plain_request(request)
    tools = [
        {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
        for tool in request.tools
    ]
    words = (
        "You have these tools:\n"
        f"{json.dumps(tools, ensure_ascii=False)}\n"
        'Call a tool by writing a JSON object {"name": …, "arguments": {…}}; for several calls, '
        "write a list of them. Write nothing else."
    )
    forced = request.with_choice_in_words() if request.is_forced else request
    system = f"{forced.system}\n\n{words}".strip()
    return replace(to_plain_request(forced), system=system, tools=(), tool_choice="auto")
