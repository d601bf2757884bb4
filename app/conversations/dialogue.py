"""Dialogues with a model: its turns and ours, and answers through a tool, repaired if unusable."""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeAlias, TypeVar

from app.json_values import JsonObject
from app.providers.llm import Completion, Message, Request, Tool, ToolCall, ToolResult

T = TypeVar("T")

Ask: TypeAlias = Callable[[Request, str], Awaitable[Completion]]
"""Sends a request to a model for a purpose, which the job's log names; raises ProviderError."""

_SURROGATE = re.compile("[\ud800-\udfff]")


class BadAnswerError(Exception):
    """The answer cannot be used; the message tells the model what to correct."""


class MissingAnswerError(BadAnswerError):
    """The reply contains no answer."""


class NoAnswerError(Exception):
    """The model gave no usable answer; the message says why, for people."""


class RefusalError(NoAnswerError):
    """The model refused to answer; the message is its text, which may be empty."""


class Dialogue:
    """The messages so far; our turns and the model's alternate."""

    def __init__(self, ask: Ask, system: str) -> None:
        self._ask = ask
        self._system = system
        self._messages: list[Message] = []

    def say(self, text: str, results: Sequence[ToolResult] = ()) -> None:
        """Add our next turn, or extend our last one if the model has said nothing since."""
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


class Repair(ABC):
    """How an unusable answer is sent back: the texts, which subclasses choose, and how often."""

    max_repairs = 1
    max_repairs_without_answer = 1
    repairs_refusals = False
    result = "Not done"
    """Beginning of the result of each call that is sent back."""

    @abstractmethod
    def turn(self, tool: str, reply: Completion, error: BadAnswerError) -> str:
        """Return our turn after an answer that cannot be used."""

    def describe_missing_call(self, tool: str, _reply: Completion) -> str:
        """Return what is wrong with a reply that does not call the tool."""
        return f"the tool `{tool}` was not called"

    def describe_unreadable_call(self, call: ToolCall, _reply: Completion) -> str | None:
        """Return why a call cannot be read; None if it can, which takes arguments."""
        if call.arguments is None:
            return "the arguments are not a JSON object; they may have been cut off"
        return None


@dataclass(frozen=True, slots=True)
class AnswerTool(Generic[T]):
    """The tool through which a model answers; `read` takes its arguments, raises BadAnswerError."""

    tool: Tool
    read: Callable[[JsonObject], T]
    repair: Repair


class StructuredDialogue(Generic[T]):
    """A dialogue that ends with an answer through a tool.

    Its methods raise NoAnswerError, its subclass RefusalError, and the errors of the model.
    """

    def __init__(
        self,
        dialogue: Dialogue,
        answer_tool: AnswerTool[T],
        purpose: str,
        repair_purpose: str = "repair",
    ) -> None:
        self._dialogue = dialogue
        self._answer_tool = answer_tool
        self._purpose = purpose
        self._repair_purpose = repair_purpose

    async def answer(self) -> T:
        """Ask for the answer to our last turn and return it."""
        return await self.accept(await self._request(self._purpose))

    async def accept(self, reply: Completion) -> T:
        """Return the answer in a reply; one that cannot be used is sent back."""
        repair, name = self._answer_tool.repair, self._answer_tool.tool.name
        repairs = 0
        while True:
            if reply.finish_reason == "refusal" and not repair.repairs_refusals:
                raise RefusalError(reply.text)
            try:
                return self._read(reply)
            except BadAnswerError as error:
                is_missing = isinstance(error, MissingAnswerError)
                if repairs >= (
                    repair.max_repairs_without_answer if is_missing else repair.max_repairs
                ):
                    raise NoAnswerError(str(error)) from error
                turn = repair.turn(name, reply, error)
                result = f"{repair.result}: {error}."
            repairs += 1
            self._dialogue.say(turn, [ToolResult(call.id, result, True) for call in reply.calls])
            reply = await self._request(self._repair_purpose)

    def has_answer(self, reply: Completion) -> bool:
        """Return whether a reply calls the tool."""
        return any(call.name == self._answer_tool.tool.name for call in reply.calls)

    async def _request(self, purpose: str) -> Completion:
        return await self._dialogue.answer(purpose, [self._answer_tool.tool])

    def _read(self, reply: Completion) -> T:
        repair, name = self._answer_tool.repair, self._answer_tool.tool.name
        call = next((call for call in reply.calls if call.name == name), None)
        if call is None:
            raise MissingAnswerError(repair.describe_missing_call(name, reply))
        problem = repair.describe_unreadable_call(call, reply)
        if problem is not None or call.arguments is None:
            raise MissingAnswerError(problem)
        return self._answer_tool.read(call.arguments)


def _sendable_turn(reply: Completion) -> Message:
    """Return the model's turn, verbatim if it can be sent, as models that think require."""
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
    # A model's JSON may contain half a surrogate pair, which cannot be sent back to it.
    return _SURROGATE.sub("\ufffd", text)
