"""One bad text fails alone: requests that fail are divided, down to the single text."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from app.providers.capabilities import Capabilities, ServedModel
from app.providers.embedder import Outcome
from app.providers.errors import (
    BadRequestError,
    MisconfiguredError,
    ProviderError,
    RateLimitedError,
    RequestTooLongError,
    TextFailedError,
    UnavailableError,
)

Request: TypeAlias = Callable[[list[str]], Awaitable[Sequence[Outcome]]]

HARMLESS_TEXT = "test"
"""A text that every model embeds: if it fails, too, the server is at fault and not the texts."""

REQUESTS_AT_ONCE = 4
"""Requests that a process sends to a provider at the same time."""

_MOST_CALLS = 64
_MOST_SECONDS = 60.0


_LEAST_PASSAGE = 256
"""Characters of the shortest passage that is tried: nearly every model reads that much."""

_TEXTS, _CHARACTERS, _PASSAGE = "embedding_texts", "embedding_characters", "passage_characters"

OPTIONAL_MEMBERS = ("encoding_format", "dimensions")
"""Members of a request that some servers do not take."""


class EmbeddingLimits:
    """Limits and refused members of one embedding model; limits only shrink, until forgotten.

    `texts` and `characters` are the limits of a request while none is known.
    """

    def __init__(
        self, capabilities: Capabilities, model: ServedModel, *, texts: int, characters: int
    ) -> None:
        self._capabilities = capabilities
        self._model = model
        self._most_texts = texts
        self._most_characters = characters

    @property
    def texts(self) -> int:
        """Maximum texts a request."""
        return min(self._most_texts, self._known(_TEXTS) or self._most_texts)

    @property
    def characters(self) -> int:
        """Maximum characters a request."""
        return min(self._most_characters, self._known(_CHARACTERS) or self._most_characters)

    @property
    def passage(self) -> int | None:
        """Maximum characters a text; None: not known."""
        return self._known(_PASSAGE)

    @property
    def refused(self) -> frozenset[str]:
        """Members of a request that the server does not take."""
        refuses = self._capabilities.refuses
        return frozenset(name for name in OPTIONAL_MEMBERS if refuses(self._model, name))

    def learn_texts(self, texts: int, error: ProviderError) -> None:
        """Remember how many texts passed in place of more."""
        if texts < self.texts:
            self._learn(_TEXTS, error, texts)

    def learn_characters(self, characters: int, error: ProviderError) -> None:
        """Remember how many characters passed in place of more."""
        if characters < self.characters:
            self._learn(_CHARACTERS, error, characters)

    def learn_passage(self, refused: int, error: ProviderError) -> None:
        """Remember that a text of this length is too long: half of it is tried next."""
        half = max(_LEAST_PASSAGE, refused // 2)
        if half < refused and (self.passage is None or half < self.passage):
            self._learn(_PASSAGE, error, half)

    def learn_refusal(self, members: frozenset[str], error: ProviderError | None) -> None:
        """Remember members that the server does not take."""
        for member in members - self.refused:
            self._learn(member, error, None)

    def _known(self, feature: str) -> int | None:
        return self._capabilities.limit(self._model, feature)

    def _learn(self, feature: str, error: ProviderError | None, limit: int | None) -> None:
        reason = "" if error is None else str(error)
        self._capabilities.learn(self._model, feature, limit=limit, reason=reason)


class Division:
    """Embeds texts, at most 64 calls and a minute beyond those that fail first.

    `request` is one call: it raises ProviderError, or returns an outcome for each text. `probe` is
    a call with a harmless text; `limits` records the sizes that pass.
    """

    def __init__(
        self, request: Request, probe: Callable[[], Awaitable[bool]], limits: EmbeddingLimits
    ) -> None:
        self._request = request
        self._probe = probe
        self._limits = limits
        self._probing = asyncio.Lock()
        self._places = asyncio.Semaphore(REQUESTS_AT_ONCE)
        self._works: bool | None = None
        self._calls_left = _MOST_CALLS
        self._until: float | None = None
        self._end: ProviderError | None = None

    async def run(self, texts: list[str], request: Request) -> list[Outcome]:
        """Return an outcome for each text; `request` makes the first call."""
        async with self._places:  # none begins after an error that ends them all
            outcomes, _ = await self._attempt(texts, request)
        return outcomes

    async def _attempt(self, texts: list[str], request: Request) -> tuple[list[Outcome], bool]:
        """Return the outcomes, and whether one call embedded all texts."""
        if self._end is not None:
            return [self._end] * len(texts), False
        refused = self._limits.refused
        try:
            outcomes = list(await request(texts))
        except ProviderError as error:
            await self._look_at(error)
            if self._limits.refused != refused:  # the request had members that it has no more
                return await self._part(texts, error)
            return await self._divide(texts, error), False
        failed = {n: one for n, one in enumerate(outcomes) if isinstance(one, ProviderError)}
        if not failed:
            return outcomes, True
        first = next(iter(failed.values()))
        await self._look_at(first)
        again = await self._divide([texts[n] for n in failed], first)
        for place, outcome in zip(failed, again, strict=True):
            outcomes[place] = outcome
        return outcomes, False

    async def _look_at(self, error: ProviderError) -> None:
        """Make no more calls after an error that is not about the texts."""
        is_settled = isinstance(error, (RateLimitedError, MisconfiguredError))
        if is_settled or not await self._server_works():
            self._end = self._end or error

    async def _divide(self, texts: list[str], error: ProviderError) -> list[Outcome]:
        if self._end is not None:
            return [self._end] * len(texts)
        if isinstance(error, RequestTooLongError):
            return await self._shorten(texts, error)
        if len(texts) == 1:
            return [_about_text(error)]
        return await self._halve(texts, error)

    async def _halve(self, texts: list[str], error: ProviderError) -> list[Outcome]:
        middle = (len(texts) + 1) // 2
        first, first_passed = await self._part(texts[:middle], error)
        second, second_passed = await self._part(texts[middle:], error)
        if first_passed and second_passed and isinstance(error, BadRequestError):
            if isinstance(error, RequestTooLongError):
                self._limits.learn_characters(
                    max(map(_size, (texts[:middle], texts[middle:]))), error
                )
            else:
                self._limits.learn_texts(middle, error)
        return [*first, *second]

    async def _shorten(self, texts: list[str], error: RequestTooLongError) -> list[Outcome]:
        """Find out whether a text is too long, or all together are.

        Texts that are too long have the error as their outcome; the caller cuts them.
        """
        longest = max(texts, key=len)
        if len(texts) > 1 and not self._is_too_long(longest):
            ([outcome], _) = await self._part([longest], error)
            if not isinstance(outcome, RequestTooLongError):
                return await self._halve(texts, error)
        else:
            self._limits.learn_passage(len(longest), error)
        rest = [text for text in texts if text is not longest and not self._is_too_long(text)]
        passed = dict(zip(rest, (await self._part(rest, error))[0] if rest else [], strict=True))
        return [passed.get(text, error) for text in texts]

    async def _part(self, texts: list[str], error: ProviderError) -> tuple[list[Outcome], bool]:
        """Attempt a part of a request that failed with an error, if another call is allowed."""
        if not self._has_room():
            return [error] * len(texts), False
        self._calls_left -= 1
        return await self._attempt(texts, self._request)

    def _is_too_long(self, text: str) -> bool:
        return self._limits.passage is not None and len(text) > self._limits.passage

    def _has_room(self) -> bool:
        if self._until is None:
            self._until = time.monotonic() + _MOST_SECONDS
        return self._calls_left > 0 and time.monotonic() < self._until

    async def _server_works(self) -> bool:
        """Embed a harmless text, once a division."""
        async with self._probing:
            if self._works is None:
                self._works = await self._probe()
            return self._works


def _about_text(error: ProviderError) -> ProviderError:
    """Return the error of a text that fails although another passes."""
    if isinstance(error, UnavailableError):
        return TextFailedError(f"{error} (it embeds other texts)")
    return error


def _size(texts: Sequence[str]) -> int:
    return sum(map(len, texts))
