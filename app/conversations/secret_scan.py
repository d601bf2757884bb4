"""Secrets in texts before they are stored: keys, tokens, passwords, and card numbers.

A pattern begins only where a token begins, and its parts are bounded or possessive, so that a
search takes time in proportion to the text.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from app.conversations.memories import Edit, Proposal, Rejection
from app.conversations.messages import Turn
from app.json_values import JsonObject

SecretMode: TypeAlias = Literal["redact", "refuse", "allow"]

REFUSED = "it contains a secret, which this server does not store"

_KEYS = (
    r"sk-(?=[\w-]{0,200}\d)[\w-]{20,}+",
    r"[sr]k_(?:live|test)_\w{16,}+",
    r"whsec_\w{24,}+",
    r"gh[pousr]_\w{30,}+",
    r"github_pat_\w{22,}+",
    r"glpat-[\w-]{20,}+",
    r"(?:AKIA|ASIA)[A-Z0-9]{16}(?!\w)",
    r"AIza[\w-]{35}",
    r"xox[abeoprs]-[A-Za-z0-9-]{20,}+",
    r"npm_\w{30,}+",
    r"pypi-[\w-]{50,}+",
    r"hf_\w{30,}+",
    r"dop_v1_\w{40,}+",
    r"SG\.[\w-]{16,}+\.[\w-]{16,}+",
)
_STATED = (
    r"(?i:(?<![A-Za-z])"
    r"(?:password|passphrase|passwort|api[ _-]?key|secret[ _-]key|access[ _-]token)"
    r"(?:\s{0,3}[:=]|\s(?:is|ist)\b:?)\s{0,3}[\"'`]?)"
)
_CARD_NUMBER = "card number"
_PATTERNS: Mapping[str, re.Pattern[str]] = {
    "private key": re.compile(
        r"(?P<secret>-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----"
        r"(?:[^-]*+(?:-(?!----)[^-]*+)*+-----END [A-Z0-9 ]{1,40}-----"
        r"|(?:(?:\s|\\[nr])*+[A-Za-z0-9+/=]{40,}+)++))"
    ),
    "token": re.compile(
        r"(?<![\w-])(?P<secret>eyJ[\w-]{10,}+\.eyJ[\w-]{10,}+\.[\w-]{16,}+)", re.ASCII
    ),
    "API key": re.compile(rf"(?<![\w-])(?P<secret>{'|'.join(_KEYS)})", re.ASCII),
    "password": re.compile(
        rf"(?:(?<=://)[^\s:/@]{{0,100}}+:(?![<{{$*])(?=[^\s/@]{{1,200}}+@)|{_STATED}"
        r"(?=[^\s\"'`]{0,99}\d)(?=[^\s\"'`]{0,99}[A-Za-z])(?=[^\s\"'`]{6}))"
        r"(?P<secret>[^\s\"'`@/]{1,200}+)"
    ),
    _CARD_NUMBER: re.compile(
        r"(?<![\w.+/=-])(?P<secret>[2-6](?:[ -]?\d){14,15})(?![\w-]| \d)", re.ASCII
    ),
}
"""Patterns by the name that takes the secret's place."""

_CARD = re.compile(r"3[47]\d{13}|(?:4\d|5[1-5]|2[2-7]|35|6[05])\d{14}", re.ASCII)


@dataclass(frozen=True, slots=True)
class SecretCounts:
    """Secrets that were replaced, and texts that were not stored because of secrets."""

    redacted: int = 0
    refused: int = 0

    def members(self) -> JsonObject:
        """Return the counts for a job's result; empty if no secret was found."""
        if not (self.redacted or self.refused):
            return {}
        return {"secrets": {"redacted": self.redacted, "refused": self.refused}}


def redact_secrets(text: str) -> tuple[str, int]:
    """Return a text with a mark for each secret, and how many there were."""
    total = 0
    for name, pattern in _PATTERNS.items():
        parts, end = [], 0
        for match in pattern.finditer(text):
            if name != _CARD_NUMBER or _is_card_number(match["secret"]):
                parts += [text[end : match.start("secret")], f"[redacted: {name}]"]
                end = match.end("secret")
        text = "".join((*parts, text[end:]))
        total += len(parts) // 2
    return text, total


def scan_proposal(proposal: Proposal, mode: SecretMode) -> tuple[Proposal, SecretCounts]:
    """Return a proposal without the secrets that a model wrote."""
    if mode == "allow":
        return proposal, SecretCounts()
    redacted = refused = 0
    edits: list[Edit] = []
    rejected = [_redact_arguments(rejection) for rejection in proposal.rejected]
    for edit in proposal.edits:
        content, found = _redact_value(edit.content)
        asked = [redact_secrets(question) for question in edit.questions]
        found += sum(count for _, count in asked)
        questions = tuple(question for question, _ in asked)
        reason, _ = redact_secrets(edit.reason) if edit.reason else (edit.reason, 0)
        if found and mode == "refuse":
            refused += 1
            rejected.append(Rejection(f"{edit.action}_{edit.kind}", REFUSED))
            continue
        redacted += found
        edits.append(replace(edit, content=content, reason=reason, questions=questions))
    scanned = replace(proposal, edits=tuple(edits), rejected=tuple(rejected))
    return scanned, SecretCounts(redacted, refused)


def scan_turns(turns: Sequence[Turn], mode: SecretMode) -> tuple[list[Turn], SecretCounts]:
    """Return messages as they may be stored; one that is refused has no text."""
    if mode == "allow":
        return list(turns), SecretCounts()
    redacted = refused = 0
    scanned = []
    for turn in turns:
        text, found = redact_secrets(turn.text)
        if found and mode == "refuse":
            text, refused = "", refused + 1
        else:
            redacted += found
        scanned.append(replace(turn, text=text))
    return scanned, SecretCounts(redacted, refused)


def _redact_value(value: JsonObject | None) -> tuple[JsonObject | None, int]:
    total = 0

    def redact(value: object) -> object:
        nonlocal total
        if isinstance(value, str):
            value, found = redact_secrets(value)
            total += found
        elif isinstance(value, list):
            value = [redact(one) for one in value]
        elif isinstance(value, dict):
            value = {key: redact(one) for key, one in value.items()}
        return value

    return (None if value is None else {key: redact(one) for key, one in value.items()}), total


def _redact_arguments(rejection: Rejection) -> Rejection:
    if rejection.arguments is None:
        return rejection
    return replace(rejection, arguments=redact_secrets(rejection.arguments)[0])


def _is_card_number(text: str) -> bool:
    """Return whether digits have the form of a card issuer and the right check digit."""
    digits = text.replace(" ", "").replace("-", "")
    doubled = [sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2]]
    total = sum(doubled) + sum(int(digit) for digit in digits[-1::-2])
    return total % 10 == 0 and _CARD.fullmatch(digits) is not None
