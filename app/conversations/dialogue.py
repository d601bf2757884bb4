"""Dialogues with a model: its turns and ours, and answers through a tool, repaired if unusable."""

import asyncio
import json
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Generic, TypeAlias, TypeVar

from app.conversations.recovered_calls import recover_calls
from app.json_values import JsonObject, replace_unstorable
from app.providers.errors import ProviderError, UnavailableError
from app.providers.llm import (
    Completion,
    Message,
    Request,
    Tool,
    ToolCall,
    ToolResult,
    UnusableReplyError,
)
from app.providers.plain_request import to_plain_request

T = TypeVar("T")

Ask: TypeAlias = Callable[[Request, str], Awaitable[Completion]]
"""Sends a request to a model for a purpose, which the job's log names; raises ProviderError."""

MAX_QUOTED = 200
"""Maximum characters of a model's text that an error repeats."""

_LONG_CHARACTERS = 65_536

_PROMPT_SECONDS = 10.0
"""Maximum time that an error takes which a server does not wait for."""

_SURROGATE = re.compile("[\ud800-\udfff]")


class BadAnswerError(Exception):
    """The answer cannot be used; the message tells the model what to correct."""


class MissingAnswerError(BadAnswerError):
    """The reply contains no answer."""


class NoAnswerError(ProviderError):
    """The model gave no usable answer, though it was asked twice; `reason` says why, for people.

    `replies` are those that cannot be used, and must not be used by another attempt.
    """

    code = "unusable_reply"
    retryable = True

    prefix: ClassVar[str] = "The model gave no usable answer: "

    def __init__(self, reason: str, replies: Sequence[Completion] = ()) -> None:
        text = f"{self.prefix}{reason.rstrip('.')}."
        super().__init__(text[0].upper() + text[1:])
        self.reason = reason
        self.replies = tuple(replies)


class InvalidAnswerError(NoAnswerError):
    """The model answered, but not as it must, even after a correction."""


class RefusalError(NoAnswerError):
    """The model refused to answer; `text` is its reply, which may be empty."""

    code = "refused"
    retryable = False
    prefix = ""

    def __init__(self, text: str, replies: Sequence[Completion] = ()) -> None:
        quoted = replace_unstorable(text).strip()[:MAX_QUOTED]
        super().__init__(f"the model refused: {quoted}" if quoted else "the model refused", replies)


def join_failures(errors: Sequence[NoAnswerError]) -> NoAnswerError:
    """Return one error for several dialogues without an answer, with the reason of the first."""
    replies = [reply for error in errors for reply in error.replies]
    return NoAnswerError(errors[0].reason, replies)


class Dialogue:
    """The messages so far; our turns and the model's alternate.

    If it is divisible, the caller begins others with shorter messages if the first is too long.
    """

    def __init__(self, ask: Ask, system: str, *, divisible: bool = False) -> None:
        self._ask = ask
        self._system = system
        self._divisible = divisible
        self._messages: list[Message] = []
        self._is_plain = False

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
        reply = await self._send(request, purpose)
        if reply.finish_reason == "refusal":
            reply = replace(reply, calls=())
        reply = await recover_in_thread(reply, tools)
        if reply.text.strip() or reply.calls:
            self._messages.append(_sendable_turn(reply))
        return reply

    async def _send(self, request: Request, purpose: str) -> Completion:
        """Send a request; if one with turns of the model is refused, again in the plainest form.

        What a provider took as a first request it may refuse to take back as a part of a second.
        """
        if not any(message.role == "assistant" for message in request.messages):
            return await self._ask(replace(request, divisible=self._divisible), purpose)
        if not self._is_plain:
            began = time.monotonic()
            try:
                return await self._ask(request, purpose)
            except ProviderError as error:
                if not _may_be_due_to_form(error, time.monotonic() - began):
                    raise
            self._is_plain = True
        return await self._ask(to_plain_request(request), purpose)


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

    def describe_unreadable_call(self, call: ToolCall, reply: Completion) -> str | None:
        """Return why a call cannot be read; None if it can, which takes arguments."""
        if is_cut(call, reply):
            return "the reply was too long and was cut off"
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
        unusable: list[Completion] = []
        while True:
            if reply.finish_reason == "refusal" and not repair.repairs_refusals:
                raise RefusalError(reply.text, [reply])
            try:
                return self._read(reply)
            except BadAnswerError as error:
                repairs = len(unusable)
                unusable.append(reply)
                if repairs >= _max_repairs(repair, error):
                    raise _final_error(error, unusable) from error
                turn, reason = repair.turn(name, reply, error), str(error)
                result = f"{repair.result}: {error}."
            self._dialogue.say(turn, [ToolResult(call.id, result, True) for call in reply.calls])
            try:
                reply = await self._request(self._repair_purpose)
            except ProviderError as error:
                if error.retryable:
                    raise
                reason = f"{reason}; the model could not be asked again: {error}"
                raise NoAnswerError(reason, unusable) from error

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


def is_cut(call: ToolCall, reply: Completion) -> bool:
    """Return whether a call may be incomplete, even if its arguments can be read."""
    return reply.finish_reason == "length" and call is reply.calls[-1]


async def recover_in_thread(reply: Completion, tools: Sequence[Tool]) -> Completion:
    """Return the reply with the calls that its model meant; a long one is read in a thread."""
    size = len(reply.text) + sum(len(call.raw) for call in reply.calls)
    if size > _LONG_CHARACTERS:
        return await asyncio.to_thread(recover_calls, reply, tools)
    return recover_calls(reply, tools)


def _may_be_due_to_form(error: ProviderError, seconds: float) -> bool:
    """Return whether the form of a request may be the reason for an error.

    Some servers answer it with a status of 500, as if they were broken, but at once.
    """
    if isinstance(error, UnavailableError):
        return seconds < _PROMPT_SECONDS and not isinstance(error, UnusableReplyError)
    return not error.retryable


def _max_repairs(repair: Repair, error: BadAnswerError) -> int:
    is_missing = isinstance(error, MissingAnswerError)
    return repair.max_repairs_without_answer if is_missing else repair.max_repairs


def _final_error(error: BadAnswerError, replies: Sequence[Completion]) -> NoAnswerError:
    if replies[-1].finish_reason == "refusal":
        return RefusalError(replies[-1].text, replies)
    is_missing = isinstance(error, MissingAnswerError)
    return (NoAnswerError if is_missing else InvalidAnswerError)(str(error), replies)


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
