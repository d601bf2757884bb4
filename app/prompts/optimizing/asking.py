"""Getting an answer of a certain form out of a model, with thinking before it and repairs after."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from app.conversations.dialogue import Dialogue
from app.conversations.types import Ask
from app.prompts.optimizing.instructions import joined, section
from app.providers.llm.base import Completion, Request, Tool, ToolResult

MAX_REPAIRS = 2
"""How often an answer goes back with what is wrong with it."""

_MAX_REPAIRS_WITHOUT_ANSWER = 1  # who refuses twice refuses a third time

_LEAST_TOKENS = 8_192
_TOKENS_BESIDE = 4_096  # for thinking and the analysis
_BYTES_PER_TOKEN = 3  # of English rather more; of Chinese one character

_QUOTED = 200

T = TypeVar("T")


class BadAnswerError(Exception):
    """An answer that cannot be used; the message says why, for the model to correct it."""


class NoAnswerError(Exception):
    """The model gave no answer that can be used; the message says why, for people."""


class _NoCallError(BadAnswerError):
    """A reply that holds no answer at all."""


@dataclass(frozen=True, slots=True)
class Form(Generic[T]):
    """The tool by which a model answers, and how its arguments are read.

    `read` raises BadAnswerError.
    """

    tool: Tool
    read: Callable[[dict[str, Any]], T]


def text_argument(description: str, *, nullable: bool = False) -> dict[str, Any]:
    """Return the JSON Schema of an argument that is a text; `description` is its own in `tools`."""
    kind: str | list[str] = ["string", "null"] if nullable else "string"
    return {"type": kind, "description": section("tools", description)}


def tool(name: str, /, described: str | None = None, **arguments: dict[str, Any]) -> Tool:
    """Return a tool, all of whose arguments are required, with its own text or another one."""
    parameters = {"type": "object", "properties": arguments, "required": list(arguments)}
    return Tool(name, section("tools", described or name), parameters)


THINKING = (
    tool("think", thought=text_argument("thought")),
    tool("critique", criticism=text_argument("criticism")),
)


def with_room_for(ask: Ask, text: str) -> Ask:
    """Return an `Ask` whose replies may be long enough to repeat a text."""
    needed = _TOKENS_BESIDE + len(text.encode(errors="replace")) // _BYTES_PER_TOKEN
    max_tokens = max(_LEAST_TOKENS, needed)

    async def asked(request: Request, purpose: str) -> Completion:
        return await ask(replace(request, max_tokens=max_tokens), purpose)

    return asked


class Asking(Generic[T]):
    """A dialogue that is to end with an answer of a form.

    Its methods raise NoAnswerError, and what asking the model raises.
    """

    def __init__(self, dialogue: Dialogue, form: Form[T], purpose: str) -> None:
        self._dialogue = dialogue
        self._form = form
        self._purpose = purpose

    async def after_thinking(self, *, only_thinking: int, max_steps: int) -> T:
        """Return the answer as soon as the model gives it, in the last step at the latest.

        In the first `only_thinking` steps it can only think, in the last one only answer.
        """
        for step in range(1, max_steps):
            may_answer = step > only_thinking
            tools = (*THINKING, self._form.tool) if may_answer else THINKING
            reply = await self._dialogue.answer(self._purpose, tools)
            if reply.finish_reason == "refusal" or (may_answer and self._answers(reply)):
                return await self._taken(reply)
            is_next_last, is_next_thinking = step + 1 == max_steps, step < only_thinking
            turn = "decide" if is_next_last else "think_on" if is_next_thinking else "go_on"
            self._say(turn, reply, _results_of_thinking(reply, tools))
        return await self.at_once()

    async def at_once(self) -> T:
        """Return the answer to what was said last."""
        return await self._taken(await self._dialogue.answer(self._purpose, [self._form.tool]))

    async def _taken(self, reply: Completion) -> T:
        repairs = 0
        while True:
            try:
                return self._read(reply)
            except BadAnswerError as error:
                is_answer = not isinstance(error, _NoCallError)
                if repairs >= (MAX_REPAIRS if is_answer else _MAX_REPAIRS_WITHOUT_ANSWER):
                    raise NoAnswerError(str(error)) from error
                problem, turn = str(error), "repair" if is_answer else "answer"
            repairs += 1
            results = [ToolResult(call.id, f"Not done: {problem}.", True) for call in reply.calls]
            self._say(turn, reply, results, problem=problem)
            reply = await self._dialogue.answer("repair", [self._form.tool])

    def _read(self, reply: Completion) -> T:
        if not self._answers(reply):
            raise _NoCallError(self._why_no_answer(reply))
        call = next(call for call in reply.calls if call.name == self._form.tool.name)
        if reply.finish_reason == "length" and call is reply.calls[-1]:
            # Even if its arguments can be read: the texts in them may be cut short.
            raise _NoCallError("the reply was too long and was cut off")
        if call.arguments is None:
            raise _NoCallError(f"the arguments of {call.name} are not a JSON object")
        return self._form.read(call.arguments)

    def _answers(self, reply: Completion) -> bool:
        return any(call.name == self._form.tool.name for call in reply.calls)

    def _why_no_answer(self, reply: Completion) -> str:
        said = reply.text.strip()
        quoted = f": {said[:_QUOTED]}" if said else ""
        if reply.finish_reason == "refusal":
            return f"the model refused{quoted}"
        if reply.finish_reason == "length":
            return "the reply was too long and was cut off"
        return f"{self._form.tool.name} was not called{quoted}"

    def _say(
        self, turn: str, reply: Completion, results: Sequence[ToolResult], **values: str
    ) -> None:
        cut = section("turns", "cut") if reply.finish_reason == "length" else ""
        text = section("turns", turn, tool=self._form.tool.name, **values)
        self._dialogue.say(joined(cut, text), results)


def _results_of_thinking(reply: Completion, tools: Sequence[Tool]) -> list[ToolResult]:
    names = [tool.name for tool in tools]
    return [
        ToolResult(call.id, "Noted.")
        if call.name in names
        else ToolResult(call.id, f"There is no such tool now; use {' or '.join(names)}.", True)
        for call in reply.calls
    ]
