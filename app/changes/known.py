"""An index of memories by their words, so that an insert is compared with few of thousands."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from app.changes.duplicates import Candidate, loose_wording, near
from app.conversations.types import Existing

MAX_COMPARED = 20
"""Maximum comparisons of memories with the same words; beyond it, a repetition may be kept."""

_Key: TypeAlias = tuple[str | None, str]


def repeats(kind: str | None, content: Mapping[str, Any], memory: Existing) -> bool:
    """Tell whether a new content says what a memory says.

    A memory without a kind that is a single text is compared by its words alone: whatever its
    member is called, it must not be learned again.
    """
    if memory.kind is not None:
        return near(Candidate(kind, content), Candidate(memory.kind, memory.content))
    return near(Candidate(None, _bare(content)), Candidate(None, _bare(memory.content)))


class KnownMemories:
    """Finds the memory that a new content repeats, in time independent of their number."""

    def __init__(self, memories: Iterable[Existing] = ()) -> None:
        self._memories: dict[str, Existing] = {}
        self._keys: dict[str, _Key] = {}
        self._ids: defaultdict[_Key, dict[str, None]] = defaultdict(dict)
        for memory in memories:
            self.put(memory)

    def put(self, memory: Existing) -> None:
        """Add a memory, or replace the one with its id."""
        if memory.id in self._keys:
            del self._ids[self._keys[memory.id]][memory.id]
        key = self._keys[memory.id] = _key(memory.kind, memory.content)
        self._ids[key][memory.id] = None
        self._memories[memory.id] = memory  # keeps the place of the one it replaces

    def repeated_by(self, kind: str | None, content: Mapping[str, Any]) -> str | None:
        """Return the id of a memory that a new content repeats, preferably one of its kind."""
        for key in (_key(kind or "", content), _key(None, content)):
            for number, id_ in enumerate(self._ids.get(key, ())):
                if number == MAX_COMPARED:
                    break
                if repeats(kind, content, self._memories[id_]):
                    return id_
        return None


def _key(kind: str | None, content: Mapping[str, Any]) -> _Key:
    if kind is None:
        return None, loose_wording(_bare(content))
    return kind.lower(), loose_wording(content)


def _bare(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a content that is a single text under a neutral name."""
    values = list(content.values())
    return {"text": values[0]} if len(values) == 1 and isinstance(values[0], str) else content
