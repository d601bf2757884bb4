"""Conversion of the paths that models write to the keys of items, and back."""

import re

from app.store.schemas import MAX_KEY_CHARACTERS
from app.tools.errors import ToolError

ROOT = "/memories"

_ENCODED = re.compile("%[0-9A-Fa-f]{2}")
# Control characters, line and paragraph separators, unpaired surrogates.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def key_of(path: str) -> str:
    """Return the key of a path, "" for /memories itself; raises ToolError.

    One slash at the end is allowed, because listings write it after directories. Paths are never
    resolved or decoded: a path that would need it is refused.
    """
    if path.rstrip("/") == ROOT and len(path) <= len(ROOT) + 1:
        return ""
    if not path.startswith(f"{ROOT}/"):
        raise ToolError(
            f"Error: The path {path!a} does not start with {ROOT}. All files are there."
        )
    key = path[len(ROOT) + 1 :].removesuffix("/")
    if problem := problem_of(key):
        raise ToolError(f"Error: The path {path!a} {problem}.")
    return key


def problem_of(key: str) -> str | None:
    """Return the reason why a key cannot be a path below /memories, or None."""
    if found := _UNPRINTABLE.search(key):
        return f"contains the character U+{ord(found[0]):04X}; leave it out"
    if "\\" in key:
        return "contains a backslash; separate directories by /"
    if found := _ENCODED.search(key):
        return f"contains {found[0]}; paths are not percent-encoded, write the character itself"
    for part in key.split("/"):
        if part in ("", ".", ".."):
            return f'has the part "{part}"; give every directory and file a name'
    if len(key) > MAX_KEY_CHARACTERS:
        return f"is too long: use at most {MAX_KEY_CHARACTERS} characters below {ROOT}/"
    return None


def path_of(key: str) -> str:
    """Return the path of a key."""
    return f"{ROOT}/{key}" if key else ROOT


def lineage(key: str) -> list[str]:
    """Return the directories that contain a key, outermost first, and the key itself."""
    parts = key.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]


def is_hidden(key: str) -> bool:
    """Return whether listings omit a key: it is hidden, in node_modules, or not a path."""
    if problem_of(key):
        return True
    return any(part.startswith(".") or part == "node_modules" for part in key.split("/"))
