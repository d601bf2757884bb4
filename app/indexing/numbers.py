"""Numbers in texts that are written in groups of digits, in one form for all groupings."""

import re

# Numbers that people write in groups: telephone, card and account numbers, amounts.
_GROUPED_DIGITS = re.compile(
    r"(?<![\w.,])(?<!\d[ .\-/])(?<!\w[-./])"
    r"\(?\d(?:[ \u00a0().\-/]{0,3}\d){6,33}+(?!\w|[ .\-/]{1,3}\d)"
)
_GROUPED_ACCOUNT = re.compile(
    r"(?<!\w)[A-Za-z]{2}\d{2}(?:[ -][A-Za-z0-9]{4}){2,7}+(?:[ -][A-Za-z0-9]{1,3})?+(?!\w)"
)
_AMOUNT = re.compile(
    r"(?<![\w.,])(\d{1,3}(?:([.,'\u2019 \u00a0\u202f])\d{3}(?:\2\d{3})*+)?+|\d{1,15}+)"
    r"(?:[.,](\d{1,2}))?+(?!\d|[.,]\d|\2\d)"
)
_NO_DIGIT = re.compile(r"\D+")
_SPACE_OR_DASH = re.compile("[ -]")


def join_numbers(text: str) -> list[str]:
    """Return the numbers of a text that are written in groups, each in one form for all groupings.

    A telephone, card, or account number is its digits and letters without separators. An amount
    has no thousands separators, and a point before two decimals or one.
    """
    found = [_NO_DIGIT.sub("", match[0]) for match in _GROUPED_DIGITS.finditer(text)]
    found += [_SPACE_OR_DASH.sub("", match[0]) for match in _GROUPED_ACCOUNT.finditer(text)]
    for match in _AMOUNT.finditer(text):
        whole = _NO_DIGIT.sub("", match[1])
        amount = whole if match[3] is None else f"{whole}.{match[3]}"
        if amount != match[0]:
            found.append(amount)
    return found
