"""Parse the arguments of a model's answer: decisions, explanations, and whole prompts."""

import re

from app.json_values import replace_unstorable
from app.prompts.optimize.asking import Arguments, BadAnswerError
from app.prompts.optimize.render import choose_tag
from app.prompts.placeholders import find_placeholder_problem
from app.prompts.types import MAX_ANALYSIS_CHARACTERS, check_text

# What models write when they are asked for a text and have none.
_NONE = re.compile(
    r"\s*(?:|null|none|n/a|unchanged|no (?:recommendations?|changes?)(?: (?:are|is))?"
    r"(?: (?:made|needed|necessary|recommended|required|warranted))?)\W*",
    re.IGNORECASE,
)
# Such a text may begin like this, but so may a prompt.
_REMARK = re.compile(r"\s*no (?:recommend|change)", re.IGNORECASE)


def parse_explanation(arguments: Arguments, name: str) -> str:
    """Return an argument that people read; empty if it is not a text."""
    text = arguments.get(name)
    if not isinstance(text, str):
        return ""
    return replace_unstorable(text).strip()[:MAX_ANALYSIS_CHARACTERS]


def parse_decision(arguments: Arguments, name: str) -> bool:
    """Return whether a model says yes; raises BadAnswerError."""
    value = arguments.get(name)
    if isinstance(value, str) and value.lower() in {"true", "false"}:
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise BadAnswerError(f"{name} must be true or false")
    return value


class RewriteParser:
    """Parses the whole prompts that a model writes to replace an old one."""

    def __init__(self, argument: str, old: str) -> None:
        self._argument = argument
        self._old = old
        self._sent_back: str | None = None

    def parse(self, arguments: Arguments) -> str | None:
        """Return a prompt, byte for byte as the model wrote it; None if it wrote none.

        Raises BadAnswerError if the text cannot replace the old one.
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
        tag = choose_tag(self._old)
        if f"<{tag}>" in text or f"</{tag}>" in text:
            raise BadAnswerError(
                f"{self._argument} contains the tag {tag}, which is not a part of the prompt"
            )
        if problem := find_placeholder_problem(self._old, text):
            raise BadAnswerError(problem)
        if _REMARK.match(text) and not _REMARK.match(self._old) and text != self._sent_back:
            self._sent_back = text
            raise BadAnswerError(
                f"{self._argument} reads like a remark about the prompt; leave it empty if nothing "
                "is to change, or send the same again if the prompt is to begin so"
            )
