"""Namespaces: paths of labels, and the text they are stored as."""

import json
import re
from dataclasses import dataclass
from typing import NewType, TypeAlias

SEPARATOR = "\x1f"
"""Closes every label in stored form, so that a prefix is a range and never half a label."""

AFTER_SEPARATOR = "\x20"
"""The code point after the separator: the open end of a prefix's range in collation C."""

MAX_DEPTH = 16
MAX_LABEL_CHARACTERS = 128

# Tab, newline and carriage return stay legal: LangGraph accepts them in labels.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")

_ARRAY = re.compile(r'\[\s*"')


Labels: TypeAlias = list[str] | tuple[str, ...]
"""The labels of a namespace or prefix, from the outermost in, as a caller knows them."""

StoredNamespace = NewType("StoredNamespace", str)
"""A namespace in stored form: a root's labels and a caller's, each closed by the separator."""

Root = NewType("Root", StoredNamespace)
"""The stored namespace that confines a caller or a connection; labels are relative to it."""

ALL_ROOTS = Root(StoredNamespace(""))
"""Confines nothing: the root of upkeep, and of callers whose key has no root."""


class InvalidNamespaceError(ValueError):
    """A namespace is too deep or has a label that cannot be stored."""


@dataclass(frozen=True, slots=True)
class Range:
    """The stored namespaces at or below a prefix: `low <= namespace < high`."""

    low: str
    high: str


def check_labels(labels: Labels) -> None:
    """Raise InvalidNamespaceError unless every label can be stored."""
    if len(labels) > MAX_DEPTH:
        raise InvalidNamespaceError(f"has {len(labels)} labels; use at most {MAX_DEPTH}")
    for index, label in enumerate(labels):
        if problem := _problem(label):
            raise InvalidNamespaceError(f"label {index} {problem}")


def _problem(label: str) -> str | None:
    if not label:
        return "is empty; give every label at least one character"
    if len(label) > MAX_LABEL_CHARACTERS:
        return f"has {len(label)} characters; use at most {MAX_LABEL_CHARACTERS}"
    if found := _FORBIDDEN.search(label):
        return f"contains U+{ord(found[0]):04X}; leave out control characters"
    return None


def parse_labels(text: str) -> list[str]:
    """Return the labels of `a.b`, or of a JSON array where labels hold dots.

    A label may begin with a bracket; `["` is meant as an array. Raises InvalidNamespaceError.
    """
    labels = _json_labels(text) if text.startswith("[") else None
    if labels is None and _ARRAY.match(text):
        raise InvalidNamespaceError('is not a JSON array of strings; send one such as ["a", "b.c"]')
    if labels is None:
        labels = text.split(".") if text else []
    check_labels(labels)
    return labels


def _json_labels(text: str) -> list[str] | None:
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return None
    is_labels = isinstance(parsed, list) and all(isinstance(label, str) for label in parsed)
    return parsed if is_labels else None


def to_stored(labels: Labels, root: Root = ALL_ROOTS) -> StoredNamespace:
    """Return the stored form of a caller's labels: each is followed by the separator."""
    return StoredNamespace(root + "".join(label + SEPARATOR for label in labels))


def to_root(labels: Labels) -> Root:
    """Return the root that confines a caller to a namespace and everything below."""
    return Root(to_stored(labels))


def from_stored(namespace: StoredNamespace, root: Root = ALL_ROOTS) -> list[str]:
    """Return the labels of a stored namespace, relative to a root."""
    return namespace[len(root) :].split(SEPARATOR)[:-1]


def stored_range(prefix: StoredNamespace) -> Range:
    """Return the range of stored namespaces at or below a stored prefix."""
    if not prefix:
        return Range("", "\U0010ffff")
    return Range(prefix, prefix[:-1] + AFTER_SEPARATOR)


def only(namespace: StoredNamespace) -> Range:
    """Return the range that holds one stored namespace and none below it."""
    return Range(namespace, namespace + "\x01")
