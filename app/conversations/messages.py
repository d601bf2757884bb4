"""Messages of conversations, and turns made of them."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from typing import Annotated, Any, Literal, Self, TypeAlias, get_args

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
from app.conversations.message_formats import (
    ACCEPTED,
    THOUGHTS,
    json_text,
    read_part,
    unwrap_message,
)
from app.encoded_data import mark_encoded_data
from app.errors import InvalidRequestError, invalid_request, list_errors
from app.json_values import JsonObject, check_storable
from app.schemas import Clean, Moment

MAX_TOOL_CHARACTERS = 2_000
"""Maximum characters shown of a tool's arguments or result; the cut is marked."""

MAX_TURN_CHARACTERS = 96_000
"""Maximum characters shown of one message; the cut is marked."""

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
    "systemmessagechunk": "system",
    "developer": "system",
    "tool": "tool",
    "toolmessage": "tool",
    "toolmessagechunk": "tool",
    "function": "tool",
    "functionmessage": "tool",
    "functionmessagechunk": "tool",
}

_TEXT = frozenset({"text", "input_text", "output_text"})
_IMAGES = frozenset({"image", "image_url", "input_image"})
_SPOKEN = frozenset({"audio", "input_audio", "output_audio"})
_CALLS = frozenset(
    {
        "function_call",
        "mcp_tool_use",
        "server_tool_call",
        "server_tool_use",
        "tool_call",
        "tool_use",
    }
)
_RESULTS = ("tool_result", "function_call_output")
_CALL_ARGUMENTS = ("arguments", "input", "args")

_DOCUMENTS = ("document", "file", "input_file", "search_result")

_SKIMMED = 10_000
_SENTENCE_END = re.compile("[.!?\u3002\uff01\uff1f\u2026\u061f\u0964\n]+(?=\\s|\\Z|[^\x00-\x7f])")


class InvalidMessageError(InvalidRequestError):
    """A message of a conversation cannot be read."""

    code = "invalid_message"
    title = "Invalid message"


SourceClass: TypeAlias = Literal["user", "assistant", "tool", "document", "import"]
"""The kind of a memory's source."""

SOURCE_CLASSES: tuple[SourceClass, ...] = get_args(SourceClass)
"""All classes, the most trustworthy first."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A message of a conversation as models see it, with `shown_characters` at most."""

    id: str
    speaker: str  # "user", "assistant", "tool", or the name in the message
    text: str
    role: str = "user"
    said_at: datetime | None = None
    shown_characters: int = MAX_TURN_CHARACTERS
    source_class: SourceClass | None = None  # a system message has none

    def cut(self, characters: int) -> Self:
        """Return the message with fewer of its characters shown."""
        return replace(self, shown_characters=characters)


def lowest_class(classes: Iterable[SourceClass | None]) -> SourceClass | None:
    """Return the least trustworthy of some classes, None if no class is known."""
    known = [SOURCE_CLASSES.index(each) for each in classes if each is not None]
    return SOURCE_CLASSES[max(known)] if known else None


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


_OWN = ("role", "type", "content", "tool_calls")


class ConversationMessage(BaseModel):
    """A message in the format of OpenAI, Anthropic, Gemini, LangChain, or the AI SDK.

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
        source_class=lowest_class(_source_classes(message, role)),
    )


def _source_classes(message: ConversationMessage, role: str) -> Iterator[SourceClass | None]:
    """Yield the classes of a message's parts: users may send documents and results of tools."""
    yield next((known for known in SOURCE_CLASSES if known == role), None)
    for block in message.content if isinstance(message.content, list) else ():
        kind = block.get("type") if isinstance(block, Mapping) else None
        if kind in _DOCUMENTS:
            yield "document"
        elif isinstance(kind, str) and kind.endswith(("tool_result", "_call_output")):
            yield "tool"


def _role(message: ConversationMessage, index: int) -> str:
    if message.role is not None:
        if (role := _ROLES.get(message.role.lower())) is None:
            problem = f'is "{message.role}"; send user, assistant, system or tool'
            raise _invalid(index, "role", problem)
        return role
    if message.type is None:
        raise _invalid(index, "role", f"is missing; {ACCEPTED}")
    if (role := _ROLES.get(message.type.lower())) is None:
        raise _invalid(index, "type", f'is "{message.type}", which is no message; {ACCEPTED}')
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
        return mark_encoded_data(block.strip())
    if not isinstance(block, Mapping):
        raise _invalid(index, place, "is neither text nor a block such as {type: text, text: …}")
    kind = block.get("type")
    if (kind is None and "text" not in block) or block.get("thought") is True:
        block = read_part(block) or {}
        kind = block.get("type")
        if kind is None:
            raise _invalid(index, f"{place}.type", "is missing; say what the block is")
    if kind is not None and not isinstance(kind, str):
        raise _invalid(index, f"{place}.type", "is not a string; say what the block is")
    if kind is None or kind in _TEXT:
        text = block.get("text")
        text = text.get("value") if isinstance(text, Mapping) else text  # in OpenAI's threads
        if not isinstance(text, str):
            raise _invalid(index, f"{place}.text", "is not a string; send one")
        return mark_encoded_data(text.strip())
    return _other_block(block, kind, index, place)


def _other_block(block: Mapping[str, Any], kind: str, index: int, place: str) -> str:
    """Return the text of a block that is not text itself, or a placeholder."""
    name = kind.replace("-", "_")
    if name in THOUGHTS:
        return ""
    if name in _CALLS:
        return _call(block)
    if name.endswith(_RESULTS):
        return _result(block, index, place)
    if (used := _used_tool(block, kind)) is not None:
        output = used.get("output", used.get("result"))
        return _call(used) + ("" if output is None else f"\n{_show_result(json_text(output))}")
    return _medium(block, name, index, place)


def _medium(block: Mapping[str, Any], name: str, index: int, place: str) -> str:
    """Return the words in an image, a recording, a document, or the like, or a placeholder."""
    words = block.get("transcript") if name in _SPOKEN else block.get("refusal", block.get("text"))
    if isinstance(words, str):
        return mark_encoded_data(words.strip())
    source = block.get("source")
    if isinstance(source, Mapping) and source.get("type") in ("text", "content"):  # Anthropic's
        return _inner_text(source.get("data", source.get("content")), index, f"{place}.source")
    return "[image]" if name in _IMAGES else f"[{' '.join(str(block['type']).split())[:64]}]"


def _used_tool(block: Mapping[str, Any], kind: str) -> Mapping[str, Any] | None:
    """Return the call and result in a part of a message of the AI SDK; None for other parts."""
    if kind == "tool-invocation" and isinstance(used := block.get("toolInvocation"), Mapping):
        return used
    if kind == "dynamic-tool":
        return block
    is_tool = kind.startswith("tool-") and "toolCallId" in block
    return {"toolName": kind.removeprefix("tool-"), **block} if is_tool else None


def _call(call: Mapping[str, Any]) -> str:
    """Render a call of OpenAI (`function`), Anthropic (`input`), or LangChain (`args`)."""
    function = call["function"] if isinstance(call.get("function"), Mapping) else call
    found = [function[name] for name in _CALL_ARGUMENTS if name in function]
    shown = json_text(found[0] if found else {})
    name = function.get("name", function.get("toolName", "?"))
    return f"[calls {_line(str(name))}({_cut(mark_encoded_data(shown))})]"


def _result(block: Mapping[str, Any], index: int, place: str) -> str:
    named = (block.get(name) for name in ("content", "output", "result", "response"))
    content = next((found for found in named if found is not None), None)
    if isinstance(content, Mapping) and "value" in content:  # in the AI SDK
        content = json_text(content["value"])
    elif isinstance(content, Mapping) and not isinstance(content.get("type"), str):
        content = json_text(content)
    elif content is None or isinstance(content, int | float):
        content = "" if content is None else json_text(content)
    return _show_result(_inner_text(content, index, place))


def _inner_text(content: object, index: int, place: str) -> str:
    """Return the text of content inside of a block."""
    inner = content if isinstance(content, list) else [content]
    parts = [_block(part, index, f"{place}.content[{n}]") for n, part in enumerate(inner)]
    return " ".join(part for part in parts if part)


def _show_result(text: str) -> str:
    return f"[result: {_cut(mark_encoded_data(text))}]"


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
