"""Thoughts that servers leave in a model's text, in tags."""

import re

_TAG = re.compile(
    r"<(/?)(?:think|thinking|thought|reasoning)>|\[(/?)THINK\]|◁(/?)think▷", re.IGNORECASE
)


def remove_thoughts(text: str) -> str:
    """Return a text without thoughts in tags; takes time linear in its length.

    A thought whose opening tag was part of the prompt ends with a tag of its own; one that was
    cut off has no end, and is removed if the text begins with it.
    """
    kept: list[str] = []
    position = 0
    opened: int | None = None
    is_first = True
    for tag in _TAG.finditer(text):
        is_end = any(tag.groups())
        if not is_end and opened is None:
            kept.append(text[position : tag.start()])
            opened = tag.start()
        elif is_end and (opened is not None or is_first):
            kept = kept if opened is not None else []
            position, opened = tag.end(), None
        is_first = False
    if opened is None:
        kept.append(text[position:])
    elif "".join(kept).strip():
        kept.append(text[opened:])
    found = "".join(kept)
    return found if len(found) == len(text) else found.strip()
