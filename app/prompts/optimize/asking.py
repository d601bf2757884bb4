"""Dialogues that end with an answer by a tool: thinking before it, repairs after it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeAlias, TypeVar

from app.conversations.dialogue import Dialogue
from app.conversations.types import Ask
from app.prompts.optimize.instructions import join, render_section
from app.providers.llm.base import Completion, Request, Tool, ToolResult

MAX_REPAIRS = 2
"""How often an answer is sent back with the problem."""

_MAX_REPAIRS_WITHOUT_ANSWER = 1  # a model that refuses twice refuses a third time

_MIN_TOKENS = 8_192
_EXTRA_TOKENS = 4_096  # for thinking and the analysis
_BYTES_PER_TOKEN = 3  # more in English; one character in Chinese

_MAX_QUOTED = 200

T = TypeVar("T")

Arguments: TypeAlias = Mapping[str, Any]
"""Arguments of a model's tool call; nothing about them is checked."""


class BadAnswerError(Exception):
    """An unusable answer; the message gives the model the reason, so that it can correct it."""


class NoAnswerError(Exception):
    """The model gave no usable answer; the message gives people the reason."""


class _NoCallError(BadAnswerError):
    """A reply without an answer."""


@dataclass(frozen=True, slots=True)
class AnswerTool(Generic[T]):
    """The tool that a model answers with; `parse` reads its arguments or raises BadAnswerError."""

    tool: Tool
    parse: Callable[[Arguments], T]


def text_argument(description: str, *, nullable: bool = False) -> dict[str, Any]:
    """Return the JSON Schema of a text argument; `description` names its section in `tools`."""
    kind: str | list[str] = ["string", "null"] if nullable else "string"
    return {"type": kind, "description": render_section("tools", description)}


def tool(name: str, /, description: str | None = None, **arguments: dict[str, Any]) -> Tool:
    """Return a tool whose arguments are all required; `description` defaults to its own section."""
    parameters = {"type": "object", "properties": arguments, "required": list(arguments)}
    return Tool(name, render_section("tools", description or name), parameters)


THINKING = (
    tool("think", thought=text_argument("thought")),
    tool("critique", criticism=text_argument("criticism")),
)


def with_room_for(ask: Ask, text: str) -> Ask:
    """Return an `Ask` whose replies may be long enough to repeat a text."""
    needed = _EXTRA_TOKENS + len(text.encode(errors="replace")) // _BYTES_PER_TOKEN
    max_tokens = max(_MIN_TOKENS, needed)

    async def ask_with_room(request: Request, purpose: str) -> Completion:
        return await ask(replace(request, max_tokens=max_tokens), purpose)

    return ask_with_room


class StructuredDialogue(Generic[T]):
    """A dialogue that ends with an answer by a tool.

    Its methods raise NoAnswerError, and the errors of asking the model.
    """

    def __init__(self, dialogue: Dialogue, answer: AnswerTool[T], purpose: str) -> None:
        self._dialogue = dialogue
        self._answer = answer
        self._purpose = purpose

    async def answer_after_thinking(self, *, only_thinking: int, max_steps: int) -> T:
        """Return the answer as soon as the model gives it, at the latest in the last step.

        In the first `only_thinking` steps it can only think, in the last one only answer.
        """
        for step in range(1, max_steps):
            may_answer = step > only_thinking
            tools = (*THINKING, self._answer.tool) if may_answer else THINKING
            reply = await self._dialogue.answer(self._purpose, tools)
            if reply.finish_reason == "refusal" or (may_answer and self._has_answer(reply)):
                return await self._accept(reply)
            is_next_last, is_next_thinking = step + 1 == max_steps, step < only_thinking
            turn = "decide" if is_next_last else "think_on" if is_next_thinking else "go_on"
            self._say(turn, reply, _acknowledge(reply, tools))
        return await self.answer()

    async def answer(self) -> T:
        """Return the answer to the last turn."""
        return await self._accept(await self._dialogue.answer(self._purpose, [self._answer.tool]))

    async def _accept(self, reply: Completion) -> T:
        """Return the answer in a reply, which is sent back while it is unusable."""
        repairs = 0
        while True:
            try:
                return self._parse(reply)
            except BadAnswerError as error:
                is_answer = not isinstance(error, _NoCallError)
                if repairs >= (MAX_REPAIRS if is_answer else _MAX_REPAIRS_WITHOUT_ANSWER):
                    raise NoAnswerError(str(error)) from error
                problem, turn = str(error), "repair" if is_answer else "answer"
            repairs += 1
            results = [ToolResult(call.id, f"Not done: {problem}.", True) for call in reply.calls]
            self._say(turn, reply, results, problem=problem)
            reply = await self._dialogue.answer("repair", [self._answer.tool])

    def _parse(self, reply: Completion) -> T:
        if not self._has_answer(reply):
            raise _NoCallError(self._explain_missing_answer(reply))
        call = next(call for call in reply.calls if call.name == self._answer.tool.name)
        if reply.finish_reason == "length" and call is reply.calls[-1]:
            # Even if its arguments can be parsed: the texts in them may be cut short.
            raise _NoCallError("the reply was too long and was cut off")
        if call.arguments is None:
            raise _NoCallError(f"the arguments of {call.name} are not a JSON object")
        return self._answer.parse(call.arguments)

    def _has_answer(self, reply: Completion) -> bool:
        return any(call.name == self._answer.tool.name for call in reply.calls)

    def _explain_missing_answer(self, reply: Completion) -> str:
        text = reply.text.strip()
        quoted = f": {text[:_MAX_QUOTED]}" if text else ""
        if reply.finish_reason == "refusal":
            return f"the model refused{quoted}"
        if reply.finish_reason == "length":
            return "the reply was too long and was cut off"
        return f"{self._answer.tool.name} was not called{quoted}"

    def _say(
        self, turn: str, reply: Completion, results: Sequence[ToolResult], **values: str
    ) -> None:
        note = render_section("turns", "cut") if reply.finish_reason == "length" else ""
        text = render_section("turns", turn, tool=self._answer.tool.name, **values)
        self._dialogue.say(join(note, text), results)


def _acknowledge(reply: Completion, tools: Sequence[Tool]) -> list[ToolResult]:
    """Return the results of the calls in a reply of thoughts."""
    names = [tool.name for tool in tools]
    return [
        ToolResult(call.id, "Noted.")
        if call.name in names
        else ToolResult(call.id, f"There is no such tool now; use {' or '.join(names)}.", True)
        for call in reply.calls
    ]
