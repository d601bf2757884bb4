"""How models answer optimizers: tools, thinking first, repairs, and parsing the arguments."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from typing_extensions import override

from app.conversations.dialogue import (
    AnswerTool,
    Ask,
    BadAnswerError,
    Dialogue,
    MissingAnswerError,
    Repair,
    StructuredDialogue,
    is_cut,
)
from app.json_values import JsonObject, replace_unstorable
from app.prompts.optimizer_requests import TEMPLATES, choose_tag, join
from app.prompts.texts import find_placeholder_problem
from app.prompts.types import MAX_ANALYSIS_CHARACTERS, check_text
from app.providers.llm import Completion, Request, Tool, ToolCall, ToolResult

_MIN_TOKENS = 8_192
_EXTRA_TOKENS = 4_096  # for thinking and the analysis
_BYTES_PER_TOKEN = 3  # more in English; one character in Chinese

_MAX_QUOTED = 200

# Models write this when they are asked for a text and have none.
_NONE = re.compile(
    r"\s*(?:|null|none|n/a|unchanged|no (?:recommendations?|changes?)(?: (?:are|is))?"
    r"(?: (?:made|needed|necessary|recommended|required|warranted))?)\W*",
    re.IGNORECASE,
)
# Such a text may begin like this, but so may a prompt.
_REMARK = re.compile(r"\s*no (?:recommend|change)", re.IGNORECASE)

T = TypeVar("T")


def define_argument(description: str) -> JsonObject:
    """Return the JSON Schema of a text argument; `description` names its section in `tools`."""
    return {"type": "string", "description": TEMPLATES.fill_section("tools", description)}


def define_tool(name: str, /, description: str | None = None, **arguments: JsonObject) -> Tool:
    """Return a tool whose arguments are all required; `description` defaults to its own section."""
    parameters = {
        "type": "object",
        "properties": arguments,
        "required": list(arguments),
        "additionalProperties": False,
    }
    return Tool(name, TEMPLATES.fill_section("tools", description or name), parameters)


THINKING = (
    define_tool("think", thought=define_argument("thought")),
    define_tool("critique", criticism=define_argument("criticism")),
)


class OptimizerRepair(Repair):
    """Sends an answer back twice, and a reply without an answer once."""

    max_repairs = 2
    max_repairs_without_answer = 1  # a model that refuses twice refuses a third time
    repairs_refusals = True

    @override
    def turn(self, tool: str, reply: Completion, error: BadAnswerError) -> str:
        title = "answer" if isinstance(error, MissingAnswerError) else "repair"
        return _render_turn(title, tool, reply, problem=str(error))

    @override
    def describe_missing_call(self, tool: str, reply: Completion) -> str:
        text = reply.text.strip()
        quoted = f": {text[:_MAX_QUOTED]}" if text else ""
        if reply.finish_reason == "refusal":
            return f"the model refused{quoted}"
        if reply.finish_reason == "length":
            return "the reply was too long and was cut off"
        return f"{tool} was not called{quoted}"

    @override
    def describe_unreadable_call(self, call: ToolCall, reply: Completion) -> str | None:
        if call.arguments is None and not is_cut(call, reply):
            return f"the arguments of {call.name} are not a JSON object"
        return super().describe_unreadable_call(call, reply)


REPAIR = OptimizerRepair()


def with_room_for(ask: Ask, text: str) -> Ask:
    """Return an `Ask` whose replies may be long enough to repeat a text."""
    needed = _EXTRA_TOKENS + len(text.encode(errors="replace")) // _BYTES_PER_TOKEN
    max_tokens = max(_MIN_TOKENS, needed)

    async def ask_with_room(request: Request, purpose: str) -> Completion:
        return await ask(replace(request, max_tokens=max_tokens), purpose)

    return ask_with_room


async def answer_after_thinking(
    dialogue: Dialogue,
    answer_tool: AnswerTool[T],
    purpose: str,
    *,
    only_thinking: int,
    max_steps: int,
) -> T:
    """Return the answer as soon as the model gives it, at the latest in the last step.

    In the first `only_thinking` steps it can only think, in the last one only answer. Raises
    NoAnswerError, and the errors of asking the model.
    """
    structured = StructuredDialogue(dialogue, answer_tool, purpose)
    name = answer_tool.tool.name
    reply, results = None, list[ToolResult]()
    for step in range(1, max_steps):
        may_answer = step > only_thinking
        tools = (*THINKING, answer_tool.tool) if may_answer else THINKING
        titles = ("begin", "go_on") if may_answer else ("begin_thinking", "think_on")
        title = titles[step > 1]
        dialogue.say(_render_turn(title, name, reply), results)
        reply = await dialogue.answer(purpose, tools)
        if reply.finish_reason == "refusal" or (may_answer and structured.has_answer(reply)):
            return await structured.accept(reply)
        results = _acknowledge(reply, tools)
    dialogue.say(_render_turn("decide", name, reply), results)
    return await structured.answer()


def parse_explanation(arguments: JsonObject, name: str) -> str:
    """Return an argument that people read; empty if it is not a text."""
    text = arguments.get(name)
    if not isinstance(text, str):
        return ""
    return replace_unstorable(text).strip()[:MAX_ANALYSIS_CHARACTERS]


def parse_counterexamples(arguments: JsonObject) -> str:
    """Return the counterexamples by which a model narrowed what it adds, for people to read."""
    text = parse_explanation(arguments, "counterexamples")
    return "" if _NONE.fullmatch(text) else f"Counterexamples: {text}"


def parse_analysis(arguments: JsonObject, name: str) -> str:
    """Return an argument that people read, followed by the counterexamples."""
    return join(parse_explanation(arguments, name), parse_counterexamples(arguments))


def parse_decision(arguments: JsonObject, name: str) -> bool:
    """Return whether a model says yes; raises BadAnswerError."""
    value = arguments.get(name)
    if isinstance(value, str) and value.lower() in {"true", "false"}:
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise BadAnswerError(f"{name} must be true or false")
    return value


class RewriteParser:
    """Parses the whole prompts that a model writes to replace an old one."""

    def __init__(self, argument: str, old: str) -> None:
        self._argument = argument
        self._old = old
        self._sent_back: str | None = None

    def parse(self, arguments: JsonObject) -> str | None:
        """Return a prompt, byte for byte as the model wrote it; None if it wrote none.

        Raises BadAnswerError if the text cannot replace the old one.
        """
        text = arguments.get(self._argument)
        if text is None:
            return None
        if not isinstance(text, str):
            raise BadAnswerError(f"{self._argument} must be the text of the prompt, or empty")
        if not text.strip() or (_NONE.fullmatch(text) and not _NONE.fullmatch(self._old)):
            return None
        self._check(text)
        return text

    def _check(self, text: str) -> None:
        try:
            check_text(text)
        except ValueError as error:
            raise BadAnswerError(f"{self._argument} {error}") from error
        tag = choose_tag(self._old)
        if f"<{tag}>" in text or f"</{tag}>" in text:
            raise BadAnswerError(
                f"{self._argument} contains the tag {tag}, which is not a part of the prompt"
            )
        if problem := find_placeholder_problem(self._old, text):
            raise BadAnswerError(problem)
        if _REMARK.match(text) and not _REMARK.match(self._old) and text != self._sent_back:
            self._sent_back = text
            raise BadAnswerError(
                f"{self._argument} reads like a remark about the prompt; leave it empty if nothing "
                "is to change, or send the same again if the prompt is to begin so"
            )


def _render_turn(title: str, tool: str, reply: Completion | None, **values: str) -> str:
    is_cut_off = reply is not None and reply.finish_reason == "length"
    note = TEMPLATES.fill_section("turns", "cut") if is_cut_off else ""
    return join(note, TEMPLATES.fill_section("turns", title, tool=tool, **values))


def _acknowledge(reply: Completion, tools: Sequence[Tool]) -> list[ToolResult]:
    """Return the results of the calls in a reply of thoughts."""
    names = [tool.name for tool in tools]
    return [
        ToolResult(call.id, "Noted.")
        if call.name in names
        else ToolResult(call.id, f"There is no such tool now; use {' or '.join(names)}.", True)
        for call in reply.calls
    ]
