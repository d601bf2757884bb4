"""Messages in the formats of OpenAI, Anthropic, Gemini, and LangChain, and turns made of them."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    model_validator,
)

from app.conversations.fields import Id
from app.errors import InvalidRequestError, invalid_request, list_errors
from app.json_values import JsonObject, check_storable
from app.schemas import Clean, Moment

MAX_TOOL_CHARACTERS = 2_000
"""Maximum characters shown of a tool's arguments or result; the cut is marked."""

MAX_MESSAGES = 2_000
MAX_CONVERSATION_CHARACTERS = 400_000
"""Maximum length of a job's conversation: about 100,000 tokens, which most models can read."""

MAX_BLOCKS = 1_000
MAX_TOOL_CALLS = 256

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
_SPOKEN = frozenset({"audio", "input_audio", "output_audio"})
_THOUGHTS = frozenset({"thinking", "redacted_thinking", "reasoning", "reasoning_content"})
_CALLS = frozenset({"tool_use", "tool_call", "function_call", "server_tool_use"})

_SKIMMED = 10_000
_SENTENCE_END = re.compile("[.!?\u3002\uff01\uff1f\u2026\u061f\u0964\n]+(?=\\s|\\Z|[^\x00-\x7f])")


class InvalidMessageError(InvalidRequestError):
    """A message of a conversation cannot be read."""

    code = "invalid_message"
    title = "Invalid message"


@dataclass(frozen=True, slots=True)
class Turn:
    """A message of a conversation as models see it."""

    id: str
    speaker: str  # "user", "assistant", "tool", or the name in the message
    text: str
    role: str = "user"
    said_at: datetime | None = None


def has_several_sentences(turns: Iterable[Turn]) -> bool:
    """Return whether users say more than one sentence; the first part of each turn decides."""
    said = (turn.text[:_SKIMMED] for turn in turns if turn.role == "user")
    sentences = (part for text in said for part in _SENTENCE_END.split(text) if part.strip())
    return len(list(islice(sentences, 2))) > 1


def check_content_form(content: object) -> object:
    """Return a message's content; ValueError if it is neither text nor a list, or too long."""
    if isinstance(content, Mapping):
        content = [content]
    if content is not None and not isinstance(content, str | list):
        raise ValueError("is neither text nor a list of content blocks; send one of them")
    if isinstance(content, str) and len(content) > MAX_CONVERSATION_CHARACTERS:
        limit = MAX_CONVERSATION_CHARACTERS
        raise ValueError(f"has {len(content):,} characters; send at most {limit:,}")
    if isinstance(content, list) and len(content) > MAX_BLOCKS:
        raise ValueError(f"has {len(content):,} blocks; send at most {MAX_BLOCKS:,}")
    return content


def unwrap_message(message: object) -> object:
    """Return a pair, or one of LangChain's two wrappings of a message, as a plain object."""
    if isinstance(message, list | tuple):
        if len(message) != 2:
            raise ValueError('is a list; send an object, or a pair such as ["user", "Hello"]')
        return {"role": message[0], "content": message[1]}
    if not isinstance(message, Mapping):
        return message
    message = _with_time(_with_content(message))
    if "role" not in message and (item := _read_item(message)) is not None:
        return item
    if "lc" in message and isinstance(kwargs := message.get("kwargs"), Mapping):
        return {"type": _class_name(message.get("id")), **kwargs}
    if "content" not in message and isinstance(data := message.get("data"), Mapping):
        return {"type": message.get("type"), **data}
    return message


def _with_time(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a message whose time, in OpenAI's threads the seconds since 1970, is a text."""
    seconds = message.get("created_at")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return message
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise ValueError("created_at is not a time in seconds since 1970; send one") from error
    return {**message, "created_at": moment.isoformat()}


def _with_content(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a message whose content is in `content`: not in Gemini's parts, and not spoken."""
    if message.get("content") is not None:
        return message
    audio, parts = message.get("audio"), message.get("parts")
    if isinstance(audio, Mapping) and isinstance(transcript := audio.get("transcript"), str):
        rest = {name: member for name, member in message.items() if name != "audio"}
        return {**rest, "content": transcript}
    if isinstance(parts, list) and "role" in message:
        rest = {name: member for name, member in message.items() if name != "parts"}
        return {**rest, "content": [_read_part(part) for part in parts]}
    return message


def _read_part(part: object) -> object:
    """Return a part of a message in Gemini's format as a content block."""
    if not isinstance(part, Mapping) or isinstance(part.get("text"), str):
        return part
    if isinstance(call := part.get("functionCall"), Mapping):
        return {"type": "function_call", "name": call.get("name"), "args": call.get("args") or {}}
    if isinstance(result := part.get("functionResponse"), Mapping):
        output = json.dumps(result.get("response"), ensure_ascii=False, default=str)
        return {"type": "function_call_output", "output": output}
    return {"type": next(iter(part), "part")}


def _read_item(item: Mapping[str, Any]) -> JsonObject | None:
    """Return an item of OpenAI's Responses as a message; None if it is not such an item."""
    kind = item.get("type")
    if not isinstance(kind, str):
        return None
    known = {name: item[name] for name in ("id", "created_at") if item.get(name) is not None}
    if kind in _THOUGHTS or kind == "item_reference":
        return {**known, "role": "assistant", "content": []}
    if kind.endswith("_call_output"):
        output = item.get("output")
        is_content = isinstance(output, str | list)
        content = output if is_content else json.dumps(output, ensure_ascii=False, default=str)
        return {**known, "role": "tool", "content": content}
    if kind.endswith("_call"):
        arguments = item.get("arguments", item.get("input", item.get("action", "")))
        call = {"name": item.get("name") or kind, "arguments": arguments}
        return {**known, "role": "assistant", "tool_calls": [call]}
    return None


def _class_name(path: object) -> object:
    """Return the last part of `["langchain", "schema", "messages", "HumanMessage"]`."""
    return path[-1] if isinstance(path, list) and path else None


_OWN = ("role", "type", "content", "tool_calls")


class ConversationMessage(BaseModel):
    """A message in the format of OpenAI, Anthropic, or LangChain.

    Further members are kept. A list such as ["user", "Hello"] stands for role and content.
    """

    model_config = ConfigDict(extra="allow")

    id: Id | None = Field(None, description="Absent: the message's number, counted from 1.")
    role: Annotated[str, Field(max_length=64)] | None = Field(
        None, description="user, assistant, system, developer, or tool; type may replace it."
    )
    type: Annotated[str, Field(max_length=64)] | None = Field(
        None, description="human, ai, system, or tool, in LangChain's format."
    )
    # No type in the OpenAPI document: few languages can express "text or a list".
    content: Annotated[Any, BeforeValidator(check_content_form)] = Field(
        None,
        description="Text, or a list of blocks: text, tool_use, tool_result, image, and others.",
        examples=["I love ramen.", [{"type": "text", "text": "I love ramen."}]],
    )
    name: Annotated[Clean, Field(max_length=256)] | None = Field(
        None, description="The speaker, if not clear from the role."
    )
    created_at: Moment | None = Field(None, description="Time of the message.")
    tool_calls: Annotated[list[JsonObject], Field(max_length=MAX_TOOL_CALLS)] | None = Field(
        None, description="In the format of OpenAI or LangChain."
    )

    @model_validator(mode="before")
    @classmethod
    def _unwrap(cls, message: object) -> object:
        return unwrap_message(message)

    @model_validator(mode="after")
    def _can_be_stored(self) -> Self:
        # Makes no copy, and skips the fields whose types are checked already.
        own = (self.role, self.type, self.content, self.tool_calls)
        check_storable({**(self.model_extra or {}), **dict(zip(_OWN, own, strict=True))}, "$")
        return self

    def members(self) -> JsonObject:
        """Return the message as it is stored."""
        return self.model_dump(mode="json", exclude_unset=True)


StoredMessages = Annotated[
    list[ConversationMessage],
    PlainSerializer(lambda messages: [message.members() for message in messages]),
]
"""Messages in a job's plan: stored as they were sent, and checked again when they are read."""


def parse_messages(messages: Sequence[object]) -> list[ConversationMessage]:
    """Return stored messages; raises InvalidMessageError, naming the message."""
    return [_parse_message(message, index) for index, message in enumerate(messages)]


def to_turns(messages: Sequence[ConversationMessage]) -> list[Turn]:
    """Return one turn for each message, in order; a turn's text may be empty.

    Raises InvalidMessageError, naming the message.
    """
    ids = _assign_ids(messages)
    return [_turn(message, ids[index], index) for index, message in enumerate(messages)]


def _parse_message(message: object, index: int) -> ConversationMessage:
    try:
        return ConversationMessage.model_validate(message)
    except ValidationError as error:
        place = ("body", "messages", index)
        problem = invalid_request([{**e, "loc": (*place, *e["loc"])} for e in list_errors(error)])
        raise InvalidMessageError(problem.detail, errors=problem.members["errors"]) from error


def _assign_ids(messages: Sequence[ConversationMessage]) -> list[str]:
    """Return the messages' ids; messages without an id get the next free number."""
    taken: set[str] = set()
    for index, message in enumerate(messages):
        if message.id in taken:
            raise InvalidMessageError(
                f'messages[{index}].id is "{message.id}", as an earlier message\'s is; '
                "give every message an id of its own, or none.",
                field=f"messages[{index}].id",
            )
        if message.id is not None:
            taken.add(message.id)
    return [
        message.id if message.id is not None else _free_id(str(index + 1), taken)
        for index, message in enumerate(messages)
    ]


def _free_id(number: str, taken: set[str]) -> str:
    """Return the number, followed by a stroke for each message that already has it as its id."""
    while number in taken:
        number += "'"
    taken.add(number)
    return number


def _turn(message: ConversationMessage, turn_id: str, index: int) -> Turn:
    role = _role(message, index)
    if role != "assistant" and message.content is None and not message.tool_calls:
        raise _invalid(index, "content", "is missing; send what was said")
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
        raise _invalid(index, "role", "is missing; send user, assistant, system or tool")
    if (role := _ROLES.get(word.lower())) is None:
        raise _invalid(index, named, f'is "{word}"; send user, assistant, system or tool')
    return role


def _parts(message: ConversationMessage, index: int) -> Iterator[str]:
    """Yield the lines of a message: its texts, and placeholders for all other content."""
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
        raise _invalid(index, place, "is neither text nor a block such as {type: text, text: …}")
    kind = block.get("type")
    if kind is not None and not isinstance(kind, str):
        raise _invalid(index, f"{place}.type", "is not a string; say what the block is")
    if kind in _TEXT or (kind is None and "text" in block):
        text = block.get("text")
        text = text.get("value") if isinstance(text, Mapping) else text  # in OpenAI's threads
        if not isinstance(text, str):
            raise _invalid(index, f"{place}.text", "is not a string; send one")
        return text.strip()
    if kind is None:
        raise _invalid(index, f"{place}.type", "is missing; say what the block is")
    return _other_block(block, kind, index, place)


def _other_block(block: Mapping[str, Any], kind: str, index: int, place: str) -> str:
    """Return the text of a block that is not text itself, or a placeholder."""
    words = block.get("transcript" if kind in _SPOKEN else "refusal")
    if isinstance(words, str) and (kind in _SPOKEN or kind == "refusal"):
        return words.strip()
    if kind in _THOUGHTS:
        return ""
    if kind in _CALLS:
        return _call(block)
    if kind in ("tool_result", "function_call_output"):
        return _result(block, index, place)
    return "[image]" if kind in _IMAGES else f"[{' '.join(kind.split())[:64]}]"


def _call(call: Mapping[str, Any]) -> str:
    """Render a call of OpenAI (`function`), Anthropic (`input`), or LangChain (`args`)."""
    function = call["function"] if isinstance(call.get("function"), Mapping) else call
    found = [function[name] for name in ("arguments", "input", "args") if name in function]
    arguments: object = found[0] if found else {}
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


def _invalid(index: int, member: str, problem: str) -> InvalidMessageError:
    field = f"messages[{index}].{member}"
    return InvalidMessageError(f"{field} {problem}.", field=field)
