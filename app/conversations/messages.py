"""Conversations in the words of OpenAI, Anthropic and LangChain, as turns."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from app.conversations.types import Turn
from app.managers.errors import InvalidMessageError
from app.managers.schemas import ConversationMessage
from app.validation import invalid_request, list_errors

MAX_TOOL_CHARACTERS = 2_000
"""What is shown of a tool's arguments or answer; the rest is cut, and the cut is said."""

_ROLES = {
    "user": "user",
    "human": "user",
    "humanmessage": "user",
    "humanmessagechunk": "user",
    "assistant": "assistant",
    "ai": "assistant",
    "aimessage": "assistant",
    "aimessagechunk": "assistant",
    "model": "assistant",
    "system": "system",
    "systemmessage": "system",
    "developer": "system",
    "tool": "tool",
    "toolmessage": "tool",
    "function": "tool",
}

_TEXT = frozenset({"text", "input_text", "output_text"})
_IMAGES = frozenset({"image", "image_url", "input_image"})
_THOUGHTS = frozenset({"thinking", "redacted_thinking", "reasoning", "reasoning_content"})
_CALLS = frozenset({"tool_use", "tool_call", "function_call", "server_tool_use"})


def to_turns(messages: Sequence[ConversationMessage | Mapping[str, Any]]) -> list[Turn]:
    """Return one turn for each message, in order; a turn's text may be empty.

    Raises InvalidMessageError, naming the message.
    """
    read = [_read(message, index) for index, message in enumerate(messages)]
    ids = _ids(read)
    return [_turn(message, ids[index], index) for index, message in enumerate(read)]


def _read(message: ConversationMessage | Mapping[str, Any], index: int) -> ConversationMessage:
    if isinstance(message, ConversationMessage):
        return message
    try:
        return ConversationMessage.model_validate(message)
    except ValidationError as error:
        place = ("body", "messages", index)
        problem = invalid_request([{**e, "loc": (*place, *e["loc"])} for e in list_errors(error)])
        raise InvalidMessageError(problem.detail, errors=problem.members["errors"]) from error


def _ids(messages: Sequence[ConversationMessage]) -> list[str]:
    """Return the messages' ids; those without one get the next number that is free."""
    given: set[str] = set()
    for index, message in enumerate(messages):
        if message.id in given:
            raise InvalidMessageError(
                f'messages[{index}].id is "{message.id}", as an earlier message\'s is; '
                "give every message an id of its own, or none.",
                field=f"messages[{index}].id",
            )
        if message.id is not None:
            given.add(message.id)
    return [
        message.id if message.id is not None else _free(str(index + 1), given)
        for index, message in enumerate(messages)
    ]


def _free(number: str, given: set[str]) -> str:
    """Return the number, with a stroke for each time that a message was given it as its id."""
    while number in given:
        number += "'"
    given.add(number)
    return number


def _turn(message: ConversationMessage, turn_id: str, index: int) -> Turn:
    role = _role(message, index)
    if role != "assistant" and message.content is None and not message.tool_calls:
        raise _wrong(index, "content", "is missing; send what was said")
    speaker = " ".join((message.name or "").split()) or role
    text = "\n".join(part for part in _parts(message, index) if part)
    return Turn(
        id=turn_id,
        speaker=speaker,
        text=_cut(text) if role == "tool" else text,
        role=role,
        said_at=message.created_at,
    )


def _role(message: ConversationMessage, index: int) -> str:
    named = "type" if message.role is None else "role"
    word = message.type if message.role is None else message.role
    if word is None:
        raise _wrong(index, "role", "is missing; send user, assistant, system or tool")
    if (role := _ROLES.get(word.lower())) is None:
        raise _wrong(index, named, f'is "{word}"; send user, assistant, system or tool')
    return role


def _parts(message: ConversationMessage, index: int) -> Iterator[str]:
    """Yield the lines of a message: its texts, and what stands for everything else."""
    shown: set[object] = set()
    blocks = [message.content] if isinstance(message.content, str) else message.content or []
    for number, block in enumerate(blocks):
        if isinstance(block, Mapping) and _hashable(block.get("type")) in _CALLS:
            shown.add(_hashable(block.get("id")))
        yield _block(block, index, f"content[{number}]")
    for call in message.tool_calls or ():
        # LangChain repeats Anthropic's tool_use blocks in tool_calls.
        if call.get("id") is None or _hashable(call["id"]) not in shown:
            yield _call(call)


def _block(block: object, index: int, place: str) -> str:
    if isinstance(block, str):
        return block.strip()
    if not isinstance(block, Mapping):
        raise _wrong(index, place, "is neither text nor a block such as {type: text, text: …}")
    kind = block.get("type")
    if kind is not None and not isinstance(kind, str):
        raise _wrong(index, f"{place}.type", "is not a string; say what the block is")
    if kind in _TEXT or (kind is None and "text" in block):
        text = block.get("text")
        if not isinstance(text, str):
            raise _wrong(index, f"{place}.text", "is not a string; send one")
        return text.strip()
    if kind is None:
        raise _wrong(index, f"{place}.type", "is missing; say what the block is")
    if kind in _THOUGHTS:
        return ""
    if kind in _CALLS:
        return _call(block)
    if kind in ("tool_result", "function_call_output"):
        return _result(block, index, place)
    return "[image]" if kind in _IMAGES else f"[{' '.join(kind.split())[:64]}]"


def _call(call: Mapping[str, Any]) -> str:
    """Render a call as OpenAI has it (`function`), Anthropic (`input`) or LangChain (`args`)."""
    function = call["function"] if isinstance(call.get("function"), Mapping) else call
    given = [function[name] for name in ("arguments", "input", "args") if name in function]
    arguments: object = given[0] if given else {}
    shown = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return f"[calls {_line(str(function.get('name', '?')))}({_cut(shown)})]"


def _result(block: Mapping[str, Any], index: int, place: str) -> str:
    content = block.get("content", block.get("output"))
    inner = content if isinstance(content, list) else [] if content is None else [content]
    parts = [_block(part, index, f"{place}.content[{n}]") for n, part in enumerate(inner)]
    return f"[result: {_cut(' '.join(part for part in parts if part))}]"


def _cut(text: str) -> str:
    rest = len(text) - MAX_TOOL_CHARACTERS
    return text if rest <= 0 else f"{text[:MAX_TOOL_CHARACTERS]}… ({rest:,} characters more)"


def _line(text: str) -> str:
    return " ".join(text.split())[:256]


def _hashable(value: object) -> str:
    return value if isinstance(value, str) else repr(value)


def _wrong(index: int, member: str, problem: str) -> InvalidMessageError:
    field = f"messages[{index}].{member}"
    return InvalidMessageError(f"{field} {problem}.", field=field)
