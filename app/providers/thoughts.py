"""Thoughts that servers leave in a model's text, in tags or in channels."""

import re
from typing import Any

_ANY = re.compile(r"[<\[◁]|\A\s{0,20}analysis")
"""Beginnings of all marks of thoughts; most texts have none."""

_TAG = re.compile(
    r"<(?P<xml>/?)(?:seed:|ant)?(?:think|thinking|thoughts?|reasoning|reflection)(?:\s[^<>]{0,200})?>"
    r"|\[(?P<square>/?)THINK(?:ING)?\]|◁(?P<kimi>/?)think▷"
    r"|<\|(?:(?P<end>END_THINKING|end_of_thought|/think)|START_THINKING|begin_of_thought|think)\|>"
    r"|(?P<channel><channel\|>)|<\|channel>\s{0,5}(?:thought|analysis)",
    re.IGNORECASE,
)

_DETAILS = re.compile(r"<details\s[^<>]{0,100}\btype=[\"']?reasoning\b[^<>]{0,100}>", re.IGNORECASE)
_DETAILS_END = re.compile("</details>", re.IGNORECASE)

_CHANNEL = re.compile(
    r"(?:<\|start\|>[^<]{0,100})?<\|channel\|>\s{0,5}(?P<name>\w{1,20})(?P<to>[^<]{0,200})"
    r"(?:<\|constrain\|>[^<]{0,50})?(?:<\|message\|>|\Z)"
)
_FUNCTION = re.compile(r"to=(?:functions\.)?([\w-]{1,100})")
_CHANNEL_END = re.compile(r"<\|(?:end|return|call|start)\|>")
_LEAKED = re.compile(r"\s{0,20}analysis(?=[A-Z\W])")
_LEAKED_END = re.compile(r"assistant\s?final|assistantcommentary")
"""Channels of a server that removes their markers, but not their names."""

_ENDS = (
    *("<|im_end|>", "<|eot_id|>", "<|end|>", "<|return|>", "<|endoftext|>", "<|end_of_text|>"),
    *("<|END_RESPONSE|>", "<end_of_turn>", "</s>"),
)
_BEGIN = "<|START_RESPONSE|>"
_WRAPPER = re.compile(r"<(response|answer)>", re.IGNORECASE)
"""The tag around the answer of models that put their thoughts before it."""


def remove_thoughts(text: str) -> str:
    """Return a model's text without thoughts and markers; takes time linear in its length.

    A thought whose opening tag was part of the prompt ends with a tag of its own; one that was
    cut off has no end, and is removed if its tag begins the text or a line.
    """
    if not _ANY.search(text):
        return text
    found = _without_markers(_without_tags(_without_details(_without_channels(text))))
    return found if len(found) == len(text) else found.strip()


def remove_thoughts_in(value: Any) -> Any:
    """Return JSON whose texts have no thoughts; texts that are only thoughts are left out.

    The depth of the value must have been checked.
    """
    if isinstance(value, str):
        return remove_thoughts(value)
    if isinstance(value, dict):
        cleaned = {name: (inner, remove_thoughts_in(inner)) for name, inner in value.items()}
        return {name: new for name, (old, new) in cleaned.items() if not _is_gone(old, new)}
    if isinstance(value, list):
        pairs = [(inner, remove_thoughts_in(inner)) for inner in value]
        return [new for old, new in pairs if not _is_gone(old, new)]
    return value


def _is_gone(old: object, new: object) -> bool:
    return new == "" and old != ""


def _without_details(text: str) -> str:
    """Return a text without the folded parts in which some user interfaces show thoughts."""
    kept: list[str] = []
    position = 0
    while opened := _DETAILS.search(text, position):
        kept.append(text[position : opened.start()])
        end = _DETAILS_END.search(text, opened.end())
        position = end.end() if end else len(text)
    return "".join([*kept, text[position:]])


def _without_tags(text: str) -> str:
    kept: list[str] = []
    position = 0
    opened: int | None = None
    for tag in _TAG.finditer(text):
        if any(tag.groupdict().values()):
            # Without a beginning, all since the last thought was one: they may be nested.
            position, opened = tag.end(), None
        elif opened is None:
            kept.append(text[position : tag.start()])
            opened = tag.start()
    if opened is None:
        kept.append(text[position:])
    elif text[text.rfind("\n", 0, opened) + 1 : opened].strip():
        kept.append(text[opened:])  # a tag that is mentioned in a sentence
    return "".join(kept)


def _without_channels(text: str) -> str:
    """Return the final channel's text, and calls as objects; text without channels as it is."""
    if _LEAKED.match(text) and (ends := list(_LEAKED_END.finditer(text))):
        return text[ends[-1].end() :]
    channels = list(_CHANNEL.finditer(text))
    if not channels:
        return text
    kept = [text[: channels[0].start()]]
    stops = [channel.start() for channel in channels[1:]] + [len(text)]
    for channel, stop in zip(channels, stops, strict=True):
        end = _CHANNEL_END.search(text, channel.end(), stop)
        content = text[channel.end() : end.start() if end else stop].strip()
        function = _FUNCTION.search(channel["to"])
        if function and content:
            kept.append(f'{{"name": "{function[1]}", "arguments": {content}}}\n')
        elif channel["name"] == "final":
            kept.append(content)
    return "".join(kept)


def _without_markers(text: str) -> str:
    """Return a text without the markers of its begin and end."""
    stripped = text.strip()
    end = len(stripped)
    while stripped.endswith(_ENDS, 0, end):
        end -= next(len(marker) for marker in _ENDS if stripped.endswith(marker, 0, end))
        while end and stripped[end - 1].isspace():
            end -= 1
    answer = stripped[:end].removeprefix(_BEGIN)
    if wrapper := _WRAPPER.match(answer):
        close = f"</{wrapper[1]}>"
        return answer[wrapper.end() :].removesuffix(close)
    return text if answer == stripped else answer
