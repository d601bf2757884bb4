"""Dates in texts of several languages, as ISO 8601 dates of reduced precision."""

import re

_ENGLISH = "january february march april may june july august september october november december"
_GERMAN = "januar februar märz april mai juni juli august september oktober november dezember"
_MONTHS = {
    name: number for names in (_ENGLISH, _GERMAN) for number, name in enumerate(names.split(), 1)
}
_MONTHS |= {name[:3]: number for name, number in _MONTHS.items()}
_MONTH = "(?P<month>" + "|".join(sorted(_MONTHS, key=len, reverse=True)) + r")\b\.?"
_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th|\.)?"
_YEAR = r"(?P<year>(?:19|20)\d\d)"

# The most precise first: a date that was found hides the parts that it consists of.
_PATTERNS = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"\b{_YEAR}-(?P<month>\d\d)-(?P<day>\d\d)",
        rf"{_YEAR}年(?P<month>\d{{1,2}})月(?P<day>\d{{1,2}})日",
        rf"\b{_DAY}(?: of)? {_MONTH},? {_YEAR}\b",
        rf"\b{_MONTH} {_DAY},? {_YEAR}\b",
        rf"\b{_YEAR}-(?P<month>\d\d)\b",
        rf"{_YEAR}年(?P<month>\d{{1,2}})月",
        rf"\b{_MONTH},?(?: of)? {_YEAR}\b",
        rf"(?<!\d){_YEAR}(?!\d)",
    )
]


def find_dates(text: str) -> list[str]:
    """Return the dates in a text, such as 2022, 2022-07, or 2022-07-03."""
    found = []
    for pattern in _PATTERNS:
        for match in pattern.finditer(text):
            found.append(_iso(match.groupdict()))
        text = pattern.sub(" ", text)
    return found


def _iso(parts: dict[str, str | None]) -> str:
    iso = str(parts["year"])
    if month := parts.get("month"):
        iso += f"-{int(month) if month.isdecimal() else _MONTHS[month.lower()]:02}"
    if day := parts.get("day"):
        iso += f"-{int(day):02}"
    return iso
