"""The messages that go to and fro between us and a model."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace

from app.conversations.types import Ask
from app.providers.llm.base import Completion, Message, Request, Tool, ToolCall, ToolResult

_SURROGATE = re.compile("[\ud800-\udfff]")


class Dialogue:
    """What was said so far; our turns and the model's alternate."""

    def __init__(self, ask: Ask, system: str) -> None:
        self._ask = ask
        self._system = system
        self._messages: list[Message] = []

    def say(self, text: str, results: Sequence[ToolResult] = ()) -> None:
        """Add our next turn; or to our last one, if the model said nothing at all since."""
        if self._messages and self._messages[-1].role == "user":
            last = self._messages.pop()
            text = f"{last.text}\n\n{text}"
            results = (*last.results, *results)
        self._messages.append(Message("user", text, results=tuple(results)))

    async def answer(self, purpose: str, tools: Sequence[Tool]) -> Completion:
        """Return the model's next turn, which has no calls if the model refused."""
        request = Request(
            self._system, tuple(self._messages), tools=tuple(tools), tool_choice="any"
        )
        reply = await self._ask(request, purpose)
        if reply.finish_reason == "refusal":
            reply = replace(reply, calls=())
        if reply.text.strip() or reply.calls:
            self._messages.append(_sendable_turn(reply))
        return reply


def _sendable_turn(reply: Completion) -> Message:
    """Return the model's turn word for word, as models that think want it, if it can be sent."""
    calls = tuple(_sendable_call(call) for call in reply.calls)
    turn = Message("assistant", _sendable(reply.text), calls=calls)
    is_whole = turn == reply.message and reply.finish_reason != "refusal"
    return reply.message if is_whole else turn


def _sendable_call(call: ToolCall) -> ToolCall:
    arguments = call.arguments
    if arguments is not None:
        arguments = json.loads(_sendable(json.dumps(arguments, ensure_ascii=False)))
    return replace(call, arguments=arguments, raw=_sendable(call.raw))


def _sendable(text: str) -> str:
    # A model's JSON may hold half of a character, which cannot be sent back to it.
    return _SURROGATE.sub("\ufffd", text)
