"""Features of requests that some servers refuse, and how a request goes on without them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from app.providers.capabilities import Capabilities, ServedModel
from app.providers.errors import (
    BadRequestError,
    MisconfiguredError,
    ProviderError,
    UnavailableError,
)
from app.providers.llm import UnusableReplyError

_MAX_CONCESSIONS = 8
"""Maximum requests repeated for one call, each with one feature less."""

OUTPUT_TOKENS = "output_tokens"
"""The limit of an answer's length, among a model's capabilities."""

_LEAST_OUTPUT_TOKENS = 256

_FAULTS = {500, 501}
"""Statuses of faults that may come from a feature."""


@dataclass(frozen=True, slots=True)
class Feature:
    """A part of requests; `refusal` finds the words of errors that name it.

    A `guessed` one is also left out after a refusal that names no feature.
    """

    name: str
    refusal: re.Pattern[str]
    guessed: bool = False


def _feature(name: str, refusal: str, *, guessed: bool = False) -> Feature:
    return Feature(name, re.compile(refusal, re.IGNORECASE | re.DOTALL), guessed)


TOOLS = _feature(
    "tools",
    r"(does not|doesn't|do not|not) support (tools|tool use|tool calls|function)"
    r"|(tools?|functions?)([ _-](calls?|calling|use))?\W{0,3} (is|are) not "
    r"(supported|enabled|available|allowed)|endpoints? found that support tool"
    r"|tools param requires|unsupported.{0,20}\btools\b|\btools\W{1,3}extra inputs"
    r"|enable-auto-tool-choice|tool-call-parser",
)
TOOL_CHOICE = _feature(
    "tool_choice",
    r"tool_?choice|'none' or 'auto'|forc\w+ (a |the )?(tool|function)|thinking mode"
    r"|\brequired\b.{0,40}not (be )?(supported|allowed)|(parse|build|invalid) grammar",
    guessed=True,
)
OPEN_OBJECTS = _feature("open_objects", r"additional_?properties")
TEMPERATURE = _feature("temperature", r"temperature", guessed=True)
CACHE_CONTROL = _feature("cache_control", r"cache_control|prompt caching", guessed=True)
SYSTEM_BLOCKS = _feature("system_blocks", r"\bsystem\b.{0,60}(string|str\b)", guessed=True)
SYSTEM_ROLE = _feature(
    "system_role",
    r"(developer|system) (instruction|role|message|prompt)s?\b.{0,40}(not|unsupported|disabled)"
    r"|role.{0,20}'?system'?.{0,20}(not|unsupported)"
    r"|unexpected (message )?role\W{0,4}(system|developer)|must start with a '?user",
)
RETURNED_REASONING = _feature(
    "returned_reasoning",
    r"['\"`.](reasoning\w*|thinking\w*|thoughts?\w*|signature)['\"`:.\s]|\breasoning_\w+"
    r"|(thinking|thought|reasoning)[ _](blocks?|content|items?|signature)|encrypted content",
    guessed=True,
)
SHOWN_REASONING = _feature("shown_reasoning", r"encrypted content|\binclude\b")
REASONING_WITH_TOOLS = _feature("reasoning_with_tools", r"reasoning_effort")
MAX_TOKENS_NAME = _feature(
    "max_tokens_name",
    r"max_completion_tokens.{0,40}instead|use '?max_comp|max_tokens\W{1,3}extra inputs",
)
WHOLE_REPLY = _feature(
    "whole_reply", r"stream mode|stream.{0,20}(must|required|enable|true)|only supports? stream"
)

_OUTPUT_LIMIT = re.compile(
    r"max_?(completion_|output_|new_)?tokens|maxOutputTokens|(output|completion) tokens"
    r"|in the (completion|output)|for the completion|maximum tokens (you )?request"
    r"|maximum tokens value",
    re.IGNORECASE,
)
_TOO_MUCH = re.compile(
    r"large|exceed|maximum|at most|less than|limit|range|greater|between|above|more than|[<>]"
    r"|reduce|afford|support|too many|lower|范围|超过|最大",
    re.IGNORECASE,
)
_DEPENDS = re.compile(r"\b(input|inputs|prompt|messages?|context|total|afford)\b", re.IGNORECASE)
"""Words of limits that hold for one request, and not for the model."""

_COMMA = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_NUMBER = re.compile(r"(?<![\w.])\d{2,9}(?![\w.]*\d)", re.ASCII)
_REMAINDER = re.compile(r">\s*(?P<context>\d{1,9})\s*-\s*(?P<input>\d{1,9})")
_SUM = re.compile(r"(?P<input>\d{1,9})\s*\+\s*\d{1,9}\s*>\s*(?P<context>\d{1,9})")
_CONTEXT = re.compile(
    r"(?:context[ _](?:length|size|window|limit)|<=|maximum of)\D{0,20}(\d{2,9})", re.IGNORECASE
)
_INPUT = re.compile(
    r"(\d{1,9})\W{1,3}(?:tokens )?(?:in|from|of) (?:the |text )?(?:input|prompt|message)"
    r"|(\d{1,9})\W{1,3}(?:input|prompt)s?\W{1,3}tokens",
    re.IGNORECASE,
)


class Concessions:
    """The features that one call leaves out: those known to be refused, and those in trial.

    A feature in trial is remembered once the call has passed without it.
    """

    def __init__(self, capabilities: Capabilities, model: ServedModel) -> None:
        self._capabilities = capabilities
        self._model = model
        self._named: dict[str, str] = {}  # features in trial, and the words that refused them
        self._guess: str | None = None
        self._guessed: set[str] = set()
        self._output_tokens: int | None = None
        self._is_stated = False
        self._words = ""
        self._count = 0
        self._without_choice = False

    def allow(self, feature: Feature) -> bool:
        """Return whether the request may have the feature."""
        name = feature.name
        in_trial = name in self._named or name == self._guess
        if feature is TOOL_CHOICE and self._without_choice:
            return False
        return not in_trial and not self._capabilities.refuses(self._model, name)

    def limit_output(self, tokens: int) -> int:
        """Return how many tokens the request may ask for at most."""
        known = self._output_tokens or self._capabilities.limit(self._model, OUTPUT_TOKENS)
        return tokens if known is None else min(tokens, known)

    def concede(self, error: ProviderError, sent: Sequence[Feature], output_tokens: int) -> bool:
        """Leave out a feature that an error refuses; False if there is none."""
        if not isinstance(error, BadRequestError | MisconfiguredError | UnavailableError) or (
            isinstance(error, UnusableReplyError) or self._count >= _MAX_CONCESSIONS
        ):
            return False
        words = error.words
        self._count += 1
        for feature in sent:
            if feature.refusal.search(words):
                self._named[feature.name] = words
                return True
        if limit := _find_output_limit(words, output_tokens):
            self._output_tokens, self._words = limit, words
            self._is_stated = not _DEPENDS.search(words) and _find_remainder(words) is None
            return True
        if isinstance(error, UnavailableError):
            return error.status in _FAULTS and self._try_without_choice(sent)
        return bool(words) and type(error) is BadRequestError and self._try_another(sent, words)

    def settle(self) -> None:
        """Remember the features without which the call has passed.

        A limit of the answer that follows from the input's length holds for this call alone.
        """
        guess = {} if self._guess is None else {self._guess: self._words}
        for name, words in {**self._named, **guess}.items():
            self._capabilities.learn(self._model, name, reason=words)
        if self._output_tokens is not None and self._is_stated:
            self._capabilities.learn(
                self._model, OUTPUT_TOKENS, limit=self._output_tokens, reason=self._words
            )

    def _try_without_choice(self, sent: Sequence[Feature]) -> bool:
        """Leave out the tool choice once: some servers break on it without a word.

        It is not remembered, because the server may have had another fault.
        """
        if TOOL_CHOICE not in sent or self._without_choice:
            return False
        self._without_choice = True
        return True

    def _try_another(self, sent: Sequence[Feature], words: str) -> bool:
        left = [f.name for f in sent if f.guessed and f.name not in self._guessed]
        self._words = self._words or words
        self._guess = left[0] if left else None
        self._guessed.update(left[:1])
        return bool(left)


def _find_output_limit(words: str, asked: int) -> int | None:
    """Return how many tokens to ask for after a refusal; None if it is not for their number."""
    words = _COMMA.sub("", words)
    if asked <= _LEAST_OUTPUT_TOKENS:
        return None
    if not (_OUTPUT_LIMIT.search(words) and _TOO_MUCH.search(words)):
        return None
    remainder = _find_remainder(words)
    if remainder is not None and remainder < _LEAST_OUTPUT_TOKENS:
        return None  # the input is too long
    stated = remainder or max(
        (n for text in _NUMBER.findall(words) if (n := int(text)) < asked), default=0
    )
    least = _LEAST_OUTPUT_TOKENS
    return stated if least <= stated < asked else max(least, asked // 2)


def _find_remainder(words: str) -> int | None:
    """Return the part of the context that the input leaves to the answer, if words state both."""
    if found := _REMAINDER.search(words) or _SUM.search(words):
        return int(found["context"]) - int(found["input"])
    context, given = _CONTEXT.search(words), _INPUT.search(words)
    return int(context[1]) - int(given[1] or given[2]) if context and given else None
