"""Index paths: which texts of a value are embedded.

`$` the whole value; `a.b` a member; `a[0]`, `a[-1]`, `a[*]` elements; `*` every child;
`{a,b.c}` several members, each on its own.
"""

import json
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from app.indexing.errors import InvalidIndexPathError

WHOLE = ("$", "")
MAX_PLACES = 20_000
"""Maximum places in a value that one path may visit."""
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
    leaves = _Walk(path).follow([value], _steps(path))
    return [_text(leaf) for leaf in leaves if leaf is not None]


@lru_cache(maxsize=1024)
def _steps(path: str) -> tuple[re.Match[str], ...]:
    if path in WHOLE:
        return ()
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
    return tuple(steps)


class _Walk:
    """Follows a path; raises InvalidIndexPathError once it has led to too many places.

    Each `{a,a}` in a path doubles them, and each `[*]` visits a whole list.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._left = MAX_PLACES

    def follow(self, nodes: list[Any], steps: Sequence[re.Match[str]]) -> list[Any]:
        """Return the nodes that the steps lead to from some nodes, in order."""
        for step in steps:
            found: list[Any] = []
            for node in nodes:
                found.extend(self._children(node, step))
                self._take(1)
            self._take(len(found))
            nodes = found
        return nodes

    def _children(self, node: Any, step: re.Match[str]) -> Iterable[Any]:
        branches, index, star, name = step.groups()
        if branches is not None:
            return [
                leaf
                for branch in branches.split(",")
                for leaf in self.follow([node], _steps(branch.strip()))
            ]
        if name is not None:
            return [node[name]] if isinstance(node, dict) and name in node else []
        if star and isinstance(node, dict):
            return node.values()
        if not isinstance(node, list):
            return []
        if star or index == "*":
            return node
        position = int(index)
        return [node[position]] if -len(node) <= position < len(node) else []

    def _take(self, places: int) -> None:
        self._left -= places
        if self._left < 0:
            raise InvalidIndexPathError(
                f"index has the path {self._path!r}, which leads to more than {MAX_PLACES:,} "
                "places; name fewer.",
                field="index",
            )


def _text(leaf: Any) -> str:
    if isinstance(leaf, (dict, list)):
        return json.dumps(leaf, sort_keys=True, ensure_ascii=False)
    return str(leaf)
