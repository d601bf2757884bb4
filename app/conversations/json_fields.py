"""Reading JSON that may come in one of several forms."""

import re
from collections.abc import Mapping

from pydantic import AfterValidator


def matching(pattern: str, wanted: str) -> AfterValidator:
    """Refuse text that a pattern does not match, in words instead of the pattern."""

    def check(text: str) -> str:
        if re.fullmatch(pattern, text) is None:
            raise ValueError(f"is not {wanted}")
        return text

    return AfterValidator(check)


def text_or_blocks(content: object) -> object:
    """Return a message's content; ValueError when it is neither text nor a list."""
    if content is None or isinstance(content, str | list):
        return content
    raise ValueError("is neither text nor a list of content blocks; send one of them")


def unwrapped(message: object) -> object:
    """Return a pair, or one of LangChain's two wrappings of a message, as a plain object."""
    if isinstance(message, list | tuple):
        if len(message) != 2:
            raise ValueError('is a list; send an object, or a pair such as ["user", "Hello"]')
        return {"role": message[0], "content": message[1]}
    if not isinstance(message, Mapping):
        return message
    if "lc" in message and isinstance(kwargs := message.get("kwargs"), Mapping):
        return {"type": _class_name(message.get("id")), **kwargs}
    if "content" not in message and isinstance(data := message.get("data"), Mapping):
        return {"type": message.get("type"), **data}
    return message


def _class_name(path: object) -> object:
    """Return the last part of `["langchain", "schema", "messages", "HumanMessage"]`."""
    return path[-1] if isinstance(path, list) and path else None
