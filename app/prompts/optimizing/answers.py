"""Reading what a model hands over: judgements, explanations and whole prompts."""

import re
from typing import Any

from app.json_values import replace_unstorable
from app.prompts.optimizing.asking import BadAnswerError
from app.prompts.optimizing.base import Optimized, Prompt
from app.prompts.optimizing.placeholders import problem
from app.prompts.optimizing.showing import tag_of
from app.prompts.schemas import MAX_ANALYSIS_CHARACTERS, check_text

NO_CONVERSATIONS = "there are no conversations to learn from"

# What models write that have been asked for a text and have none.
_NONE = re.compile(
    r"\s*(?:|null|none|n/a|unchanged|no (?:recommendations?|changes?)(?: (?:are|is))?"
    r"(?: (?:made|needed|necessary|recommended|required|warranted))?)\W*",
    re.IGNORECASE,
)
# How such a text may go on, and as well a prompt.
_REMARK = re.compile(r"\s*no (?:recommend|change)", re.IGNORECASE)


def explanation(arguments: dict[str, Any], name: str) -> str:
    """Return an argument that people read; empty when it is not a text."""
    text = arguments.get(name)
    if not isinstance(text, str):
        return ""
    return replace_unstorable(text).strip()[:MAX_ANALYSIS_CHARACTERS]


def decision(arguments: dict[str, Any], name: str) -> bool:
    """Return whether a model says yes; raises BadAnswerError."""
    said = arguments.get(name)
    if isinstance(said, str) and said.lower() in {"true", "false"}:
        return said.lower() == "true"
    if not isinstance(said, bool):
        raise BadAnswerError(f"{name} must be true or false")
    return said


class Rewriting:
    """Reads the whole prompts that a model hands over in place of an old one."""

    def __init__(self, argument: str, old: str) -> None:
        self._argument = argument
        self._old = old
        self._sent_back: str | None = None

    def read(self, arguments: dict[str, Any]) -> str | None:
        """Return a prompt, byte for byte as the model wrote it; None when it wrote none.

        Raises BadAnswerError when the text cannot take the place of the old one.
        """
        text = arguments.get(self._argument)
        if text is None:
            return None
        if not isinstance(text, str):
            raise BadAnswerError(f"{self._argument} must be the text of the prompt, or null")
        if not text.strip() or (_NONE.fullmatch(text) and not _NONE.fullmatch(self._old)):
            return None
        self._check(text)
        return text

    def _check(self, text: str) -> None:
        try:
            check_text(text)
        except ValueError as error:
            raise BadAnswerError(f"{self._argument} {error}") from error
        tag = tag_of(self._old)
        if f"<{tag}>" in text or f"</{tag}>" in text:
            raise BadAnswerError(
                f"{self._argument} contains the tag {tag}, which is not a part of the prompt"
            )
        if changed := problem(self._old, text):
            raise BadAnswerError(changed)
        if _REMARK.match(text) and not _REMARK.match(self._old) and text != self._sent_back:
            self._sent_back = text
            raise BadAnswerError(
                f"{self._argument} reads like a remark about the prompt; leave it empty if nothing "
                "is to change, or send the same again if the prompt is to begin so"
            )


def outcome(prompt: Prompt, text: str | None, analysis: str) -> Optimized:
    """Return what a new text, or none, makes of a prompt."""
    analysis = analysis[:MAX_ANALYSIS_CHARACTERS]
    if text is None:
        return Optimized("not_warranted", None, analysis, "the model recommends no change")
    if text.strip() == prompt.text.strip():
        return Optimized("not_warranted", None, analysis, "the model left the prompt as it is")
    return Optimized("improved", text, analysis)


def nothing_to_learn_from() -> Optimized:
    """Return what comes of a prompt when there are no conversations."""
    return Optimized("not_warranted", None, "", NO_CONVERSATIONS)


def rejected(reason: str, analysis: str = "") -> Optimized:
    """Return what comes of a prompt when the model gives nothing that can be used."""
    analysis = analysis[:MAX_ANALYSIS_CHARACTERS]
    return Optimized("rejected", None, analysis, replace_unstorable(reason))
