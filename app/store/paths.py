"""Index paths: which texts of a value are embedded.

`$` the whole value; `a.b` a member; `a[0]`, `a[-1]`, `a[*]` elements; `*` every child;
`{a,b.c}` several members, each on its own.
"""

import json
import re
from typing import Any

from app.store.errors import InvalidIndexPathError

WHOLE = ("$", "")
_STEP = re.compile(r"\{([^{}]*)\}|\[(-?\d+|\*)\]|(\*)|([^.\[\]{}*]+)")


def check_path(path: str, field: str) -> None:
    """Raise InvalidIndexPathError unless the path can be followed."""
    try:
        _steps(path)
    except ValueError as error:
        raise InvalidIndexPathError(
            f"{field} is {path!r}: {error}. Write paths like title, meta.author, tags[*] or "
            "{title,meta.author}.",
            field=field,
        ) from error


def texts_at(value: dict[str, Any], path: str) -> list[str]:
    """Return the texts a path leads to, in the value's order; none where it leads nowhere."""
    if path in WHOLE:
        return [_text(value)]
    return [_text(leaf) for leaf in _follow([value], _steps(path)) if leaf is not None]


def _steps(path: str) -> list[re.Match[str]]:
    if path in WHOLE:
        return []
    steps: list[re.Match[str]] = []
    at = 0
    while at < len(path):
        at += path[at] == "." and at > 0
        step = _STEP.match(path, at)
        if step is None:
            raise ValueError(f"it cannot be read from character {at + 1} on")
        for branch in step[1].split(",") if step[1] is not None else ():
            _steps(branch.strip())
        steps.append(step)
        at = step.end()
    return steps


def _follow(nodes: list[Any], steps: list[re.Match[str]]) -> list[Any]:
    for step in steps:
        nodes = [child for node in nodes for child in _children(node, step)]
    return nodes


def _children(node: Any, step: re.Match[str]) -> list[Any]:
    branches, index, star, name = step.groups()
    if branches is not None:
        return [
            leaf
            for branch in branches.split(",")
            for leaf in _follow([node], _steps(branch.strip()))
        ]
    if name is not None:
        return [node[name]] if isinstance(node, dict) and name in node else []
    if star and isinstance(node, dict):
        return list(node.values())
    if not isinstance(node, list):
        return []
    if star or index == "*":
        return node
    position = int(index)
    return [node[position]] if -len(node) <= position < len(node) else []


def _text(leaf: Any) -> str:
    if isinstance(leaf, (dict, list)):
        return json.dumps(leaf, sort_keys=True, ensure_ascii=False)
    return str(leaf)
