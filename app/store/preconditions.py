"""ETags, If-Match and If-None-Match (RFC 9110, section 13)."""

import re
from dataclasses import dataclass
from typing import Self

from app.errors import InvalidRequestError

_ANY = "*"
# Empty elements are ignored, as RFC 9110 (5.6.1) asks.
_TAGS = re.compile(r'[\s,]*(W/)?"[^"]*"(\s*,[\s,]*(W/)?"[^"]*")*[\s,]*')
PATTERN = rf"^({_TAGS.pattern}|\s*\*\s*)$"
"""What either header may hold, as JSON Schema has it."""
_TAG = re.compile(r'(W/)?"([^"]*)"')


def etag(version: int) -> str:
    """Return the entity tag of a version of an item."""
    return f'"{version}"'


@dataclass(frozen=True, slots=True)
class Precondition:
    """What must hold of an item for a request to go ahead."""

    if_match: str | None = None
    if_none_match: str | None = None

    @classmethod
    def parse(cls, if_match: str | None, if_none_match: str | None) -> Self:
        """Check the headers' form; raises InvalidRequestError naming the header."""
        for name, header in (("If-Match", if_match), ("If-None-Match", if_none_match)):
            if header is not None and header.strip() != _ANY and not _TAGS.fullmatch(header):
                raise InvalidRequestError(
                    f'{name} is {header!r}; send * or entity tags in double quotes, as in "3".',
                    field=name,
                )
        return cls(if_match, if_none_match)

    def __bool__(self) -> bool:
        return self.if_match is not None or self.if_none_match is not None

    def holds(self, version: int | None) -> bool:
        """Tell whether it holds for an item at `version` (None: there is no item)."""
        if self.if_match is not None and not _matches(self.if_match, version, weak=False):
            return False
        return self.if_none_match is None or not _matches(self.if_none_match, version, weak=True)


UNCONDITIONAL = Precondition()


def _matches(header: str, version: int | None, *, weak: bool) -> bool:
    """Compare with a header's tags; If-Match compares strongly, If-None-Match weakly."""
    if version is None:
        return False
    if header.strip() == _ANY:
        return True
    return any(
        tag == str(version) and (weak or not is_weak) for is_weak, tag in _TAG.findall(header)
    )
