"""The result of one check by `memoryd doctor`."""

from dataclasses import dataclass

from typing_extensions import override


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    good: bool
    subject: str
    detail: str

    @override
    def __str__(self) -> str:
        return f"{'ok  ' if self.good else 'FIX '}  {self.subject}: {self.detail}"
