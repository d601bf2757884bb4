"""Dates with the precision that was given: a year, a month, a day, or a time."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Self

from typing_extensions import override

_PERIOD = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d))?)?", re.ASCII)

_LAST = datetime.max.replace(tzinfo=UTC)


class Precision(StrEnum):
    """How exact a date is."""

    YEAR = "year"
    MONTH = "month"
    DAY = "day"
    TIME = "time"


@dataclass(frozen=True, slots=True)
class PartialDate:
    """A year, month, or day in UTC, which begins at `start` and lasts until `end`, or a time."""

    start: datetime
    precision: Precision = Precision.TIME

    @classmethod
    def of_period(cls, text: str) -> Self | None:
        """Return the year, month, or day that a text names; ValueError if there is none such."""
        found = _PERIOD.fullmatch(text)
        if found is None:
            return None
        year, month, day = found.groups()
        precision = Precision.DAY if day else Precision.MONTH if month else Precision.YEAR
        return cls(datetime(int(year), int(month or 1), int(day or 1), tzinfo=UTC), precision)

    @classmethod
    def ending(cls, end: datetime, precision: Precision) -> Self:
        """Return the date that lasts until `end`."""
        if precision is Precision.TIME:
            return cls(end)
        last = (end - timedelta(microseconds=1)).astimezone(UTC)
        midnight = last.replace(hour=0, minute=0, second=0, microsecond=0)
        match precision:
            case Precision.YEAR:
                return cls(midnight.replace(month=1, day=1), precision)
            case Precision.MONTH:
                return cls(midnight.replace(day=1), precision)
            case Precision.DAY:
                return cls(midnight, precision)

    @property
    def end(self) -> datetime:
        """The end of the period, which is no longer part of it; of a time, the time itself."""
        start = self.start
        try:
            match self.precision:
                case Precision.YEAR:
                    return start.replace(year=start.year + 1)
                case Precision.MONTH:
                    return start.replace(
                        year=start.year + start.month // 12, month=start.month % 12 + 1
                    )
                case Precision.DAY:
                    return start + timedelta(days=1)
                case Precision.TIME:
                    return start
        except (ValueError, OverflowError):  # the last year, month, or day that there is
            return _LAST

    def is_after(self, other: "PartialDate") -> bool:
        """Return whether the whole of another date is before this one."""
        return self.start > other.start and self.start >= other.end

    @override
    def __str__(self) -> str:
        """Return the date as it was given."""
        match self.precision:
            case Precision.YEAR:
                return f"{self.start.year:04}"
            case Precision.MONTH:
                return f"{self.start.year:04}-{self.start.month:02}"
            case Precision.DAY:
                return self.start.date().isoformat()
            case Precision.TIME:
                return self.start.isoformat()
