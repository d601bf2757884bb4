"""Embedders: the interface, the cutting of long texts, shared batches, and choice by setting."""

import asyncio
import hashlib
import importlib
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from cachetools import LRUCache

from app.providers.capabilities import Capabilities
from app.providers.errors import (
    BadRequestError,
    ProviderError,
    TextFailedError,
    UnavailableError,
)
from app.providers.provider import Provider, Providers, find_provider

Vector: TypeAlias = npt.NDArray[np.float32]
"""One dimension, unit length."""

TextKind: TypeAlias = Literal["query", "passage"]
"""A text to find others by, which a request waits for, or a part of a stored item."""

Outcome: TypeAlias = Vector | ProviderError
"""A text's vector, or the error for which it has none.

The errors that `is_about_text` names are the text's own; others concern the whole server.
"""

# Tokenizers delete control characters and so join the words around them: not a place to cut.
_SPACE = r"[^\S\x0b\x0c\x1c-\x1f\x85]"
_SPACES = re.compile(_SPACE + "+")
_SENTENCE_END = re.compile(rf"[.!?…][\"')\]]*{_SPACE}+|[。！？]|\n+")  # noqa: RUF001 - Chinese marks
_OVERLAP = 0.1

_BATCH_TEXTS = 128
_KEY_CHARACTERS = 200
"""Longer texts are cached under their digests, which take less memory."""

_FAKE_PASSAGE_CHARACTERS = 1_000


@dataclass(frozen=True, slots=True)
class TextForm:
    """The form in which a model wants texts of a kind: a prefix, and the request's `input_type`."""

    prefix: str = ""
    input_type: str | None = None


@dataclass(frozen=True, slots=True)
class TextForms:
    """The forms of queries and of passages."""

    query: TextForm = TextForm()
    passage: TextForm = TextForm()

    def of(self, kind: TextKind) -> TextForm:
        """Return the form of texts of a kind."""
        return self.query if kind == "query" else self.passage


ONE_FORM = TextForms()
"""Texts as they are."""


class Embedder(Protocol):
    """Turns texts into vectors whose dot product is their similarity."""

    @property
    def name(self) -> str:
        """The setting that selects this embedder, such as `local:all-MiniLM-L6-v2`."""

    @property
    def forms(self) -> TextForms:
        """The forms in which the model gets queries and passages."""

    @property
    def dimensions(self) -> int:
        """The length of a vector; some embedders know it only after `warm_up`."""

    async def warm_up(self, *, load: bool = True) -> None:
        """Find out the dimensions and, with `load`, load the model before the first `embed`."""

    def assume_dimensions(self, dimensions: int) -> None:
        """Take vectors to have this length, if theirs is not known yet."""

    async def embed(self, texts: Sequence[str], *, kind: TextKind = "passage") -> list[Vector]:
        """Return one vector a text; queries go ahead of passages.

        Raises ProviderError.
        """

    async def embed_each(
        self, texts: Sequence[str], *, kind: TextKind = "passage"
    ) -> list[Outcome]:
        """Return for each text its vector or its error; one bad text fails alone."""

    def split(self, text: str) -> list[str]:
        """Split `text` into passages that fit the model; none for blank text.

        May take a second for a megabyte: call it in a thread for texts of that size.
        """

    async def aclose(self) -> None:
        """Release all resources; later calls fail with UnavailableError."""


def vectors_of(outcomes: Iterable[Outcome]) -> list[Vector]:
    """Return the vectors; raises the first error that is there instead."""
    vectors: list[Vector] = []
    for outcome in outcomes:
        if isinstance(outcome, ProviderError):
            raise outcome
        vectors.append(outcome)
    return vectors


def is_about_text(error: ProviderError) -> bool:
    """Return whether an error concerns a single text, and not all that the server is sent."""
    return isinstance(error, (BadRequestError, TextFailedError))


def split_text(text: str, reach: Callable[[int], int]) -> list[str]:
    """Return the passages of `spans`, stripped, without those that are blank."""
    passages = (text[start:end].strip() for start, end in spans(text, reach))
    return [passage for passage in passages if passage]


def spans(
    text: str, reach: Callable[[int], int], *, overlap: float = _OVERLAP
) -> Iterator[tuple[int, int]]:
    """Yield the start and end of passages that together cover `text`.

    A passage repeats at most the fraction `overlap` of the one before it. `reach(start)` is the
    furthest end of a passage from `start`: beyond `start`, and beyond the text if all the rest
    fits.
    """
    start, end = 0, 0
    while end < len(text):
        limit = reach(start)
        if limit <= end:
            start = end
            limit = reach(start)
        end = len(text) if limit >= len(text) else _best_end(text, start, limit, end)
        yield start, end
        start = _next_start(text, end, int((end - start) * overlap))


def split_by_characters(text: str, limit: int) -> list[str]:
    """Return passages of at most `limit` characters; none for blank text."""
    stripped = text.strip()
    return split_text(stripped, lambda start: start + limit)


def _best_end(text: str, start: int, limit: int, previous_end: int) -> int:
    """Prefer the last sentence end in the second half of the reach, then the last space."""
    floor = max(start + (limit - start) // 2, previous_end)
    for boundary in (_SENTENCE_END, _SPACES):
        ends = [match.end() for match in boundary.finditer(text, floor, limit)]
        if ends and ends[-1] > floor:
            return ends[-1]
    return limit


def _next_start(text: str, end: int, overlap: int) -> int:
    """Step back from `end` to the first word that begins within the overlap, if one does."""
    space = _SPACES.search(text, end - overlap, end)
    return space.end() if space else end


@dataclass(eq=False, slots=True)
class _Work:
    """A text to embed; the outcome is a value, so that asyncio reports no unretrieved error."""

    key: str
    text: str
    outcome: "asyncio.Future[Vector | BaseException]"
    callers: set[int] = field(default_factory=set)
    taken: bool = False


class BatchingEmbedder:
    """Wraps an embedder; results are the same, with fewer and fuller calls.

    There are two lanes, one for queries and one for passages. Each has one call in progress; texts
    that arrive during it form the next batch. A text in progress is embedded once, however
    many callers need it, and the last `cache_entries` results are cached.
    """

    def __init__(self, inner: Embedder, *, cache_entries: int = 10_000) -> None:
        self._inner = inner
        self._cache: LRUCache[str | bytes, Vector] = LRUCache(cache_entries)
        self._works: dict[str, _Work] = {}
        self._lanes: dict[TextKind, deque[_Work]] = {"query": deque(), "passage": deque()}
        self._runners: dict[TextKind, asyncio.Task[None]] = {}
        self._callers = count()
        self._closed = False

    @property
    def name(self) -> str:
        """The wrapped embedder's name."""
        return self._inner.name

    @property
    def forms(self) -> TextForms:
        """The wrapped embedder's forms."""
        return self._inner.forms

    @property
    def dimensions(self) -> int:
        """The wrapped embedder's dimensions."""
        return self._inner.dimensions

    async def warm_up(self, *, load: bool = True) -> None:
        """Warm up the wrapped embedder."""
        await self._inner.warm_up(load=load)

    def assume_dimensions(self, dimensions: int) -> None:
        """Have the wrapped embedder assume them."""
        self._inner.assume_dimensions(dimensions)

    def split(self, text: str) -> list[str]:
        """Split as the wrapped embedder does."""
        return self._inner.split(text)

    async def embed(self, texts: Sequence[str], *, kind: TextKind = "passage") -> list[Vector]:
        """Return one vector a text; the vectors are shared and read-only."""
        return vectors_of(await self.embed_each(texts, kind=kind))

    async def embed_each(
        self, texts: Sequence[str], *, kind: TextKind = "passage"
    ) -> list[Outcome]:
        """Return for each text its vector, shared and read-only, or its error."""
        if self._closed:
            return [UnavailableError(f"{self.name} is closed; start the server again")] * len(texts)
        known: dict[str, Outcome] = {
            text: vector
            for text in set(texts)
            if (vector := self._cache.get(_cache_key(self._key(text, kind)))) is not None
        }
        missing = [text for text in dict.fromkeys(texts) if text not in known]
        if missing:
            known.update(await self._join(missing, kind))
        return [known[text] for text in texts]

    async def aclose(self) -> None:
        """Stop; pending calls fail with UnavailableError. Closes the wrapped embedder too."""
        self._closed = True
        runners = list(self._runners.values())
        for runner in runners:
            runner.cancel()
        await asyncio.gather(*runners, return_exceptions=True)
        error = UnavailableError(f"{self.name} was closed; start the server again")
        for work in list(self._works.values()):
            self._settle(work, error)
        await self._inner.aclose()

    async def _join(self, texts: list[str], kind: TextKind) -> dict[str, Outcome]:
        caller = next(self._callers)
        works = [self._enqueue(text, caller, kind) for text in texts]
        if kind not in self._runners and self._lanes[kind]:
            self._runners[kind] = asyncio.create_task(self._run_lane(kind))
        try:
            await asyncio.wait([work.outcome for work in works])
        finally:
            for work in works:
                work.callers.discard(caller)
        outcomes: dict[str, Outcome] = {}
        for work in works:
            outcome = work.outcome.result()
            if isinstance(outcome, BaseException) and not isinstance(outcome, ProviderError):
                raise outcome
            outcomes[work.text] = outcome
        return outcomes

    def _key(self, text: str, kind: TextKind) -> str:
        """Return the key of a text, which a query shares with a passage only in one form."""
        forms = self._inner.forms
        return text if forms.query == forms.passage else f"{kind}:{text}"

    def _enqueue(self, text: str, caller: int, kind: TextKind) -> _Work:
        key = self._key(text, kind)
        work = self._works.get(key)
        if work is None:
            work = _Work(key, text, asyncio.get_running_loop().create_future())
            self._works[key] = work
            self._lanes[kind].append(work)
        elif kind == "query" and not work.taken:
            self._lanes[kind].append(work)
        work.callers.add(caller)
        return work

    async def _run_lane(self, kind: TextKind) -> None:
        try:
            while batch := self._next_batch(self._lanes[kind]):
                await self._embed(batch, kind)
        finally:
            del self._runners[kind]

    def _next_batch(self, lane: "deque[_Work]") -> list[_Work]:
        batch: list[_Work] = []
        while lane and len(batch) < _BATCH_TEXTS:
            work = lane.popleft()
            if work.taken:
                continue
            work.taken = True
            if work.callers:
                batch.append(work)
            else:
                self._settle(
                    work, UnavailableError("the callers that needed this text were cancelled")
                )
        return batch

    async def _embed(self, batch: list[_Work], kind: TextKind) -> None:
        call = asyncio.create_task(self._call([work.text for work in batch], kind))
        try:
            await asyncio.wait([call])
        finally:
            call.cancel()
        error = call.exception()
        outcomes = [error] * len(batch) if error is not None else call.result()
        for work, outcome in zip(batch, outcomes, strict=True):
            self._settle(work, outcome)

    async def _call(self, texts: list[str], kind: TextKind) -> list[Outcome]:
        outcomes = await self._inner.embed_each(texts, kind=kind)
        if len(outcomes) != len(texts):
            error = UnavailableError(
                f"{self.name} gave {len(outcomes)} vectors for {len(texts)} texts"
            )
            return [error] * len(texts)
        return outcomes

    def _settle(self, work: _Work, outcome: Vector | BaseException) -> None:
        del self._works[work.key]
        work.outcome.set_result(outcome)
        if isinstance(outcome, BaseException):
            return
        outcome.setflags(write=False)
        self._cache[_cache_key(work.key)] = outcome


def _cache_key(text: str) -> str | bytes:
    """Return a key in the form in which the cache has it."""
    if len(text) <= _KEY_CHARACTERS:
        return text
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


class FakeEmbedder:
    """Gives each word a direction and each text the sum of its words' directions.

    `calls` records the texts of each call; `delay` is how many seconds a call takes.
    """

    name = "fake:hashed"
    forms = ONE_FORM

    def __init__(self, dimensions: int = 64, *, delay: float = 0) -> None:
        self.dimensions = dimensions
        self.delay = delay
        self.calls: list[list[str]] = []
        self._closed = False

    async def warm_up(self, *, load: bool = True) -> None:
        """Do nothing: there is nothing to load."""

    def assume_dimensions(self, dimensions: int) -> None:
        """Do nothing: they are known."""

    async def embed(self, texts: Sequence[str], *, kind: TextKind = "passage") -> list[Vector]:  # noqa: ARG002 - answers at once
        """Return one vector a text."""
        if self._closed:
            raise UnavailableError(f"{self.name} is closed; make another")
        self.calls.append(list(texts))
        await asyncio.sleep(self.delay)
        return [self._vector(text) for text in texts]

    async def embed_each(
        self, texts: Sequence[str], *, kind: TextKind = "passage"
    ) -> list[Outcome]:
        """Return an outcome for each text; after a failure each text is embedded alone."""
        try:
            return [*await self.embed(texts, kind=kind)]
        except ProviderError as error:
            if len(texts) < 2:
                return [error] * len(texts)
        return [one for text in texts for one in await self.embed_each([text], kind=kind)]

    def split(self, text: str) -> list[str]:
        """Cut `text` into passages of at most 1,000 characters."""
        return split_by_characters(text, _FAKE_PASSAGE_CHARACTERS)

    async def aclose(self) -> None:
        """Refuse further calls, as the others do."""
        self._closed = True

    def _vector(self, text: str) -> Vector:
        words = re.findall(r"\w+", text.lower()) or [""]
        total = np.sum([self._direction(word) for word in words], axis=0)
        return np.asarray(total / np.linalg.norm(total), dtype=np.float32)

    def _direction(self, word: str) -> Vector:
        seed = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        generator = np.random.default_rng(int.from_bytes(seed, "little"))
        return generator.standard_normal(self.dimensions, dtype=np.float32)


def create_embedder(
    setting: str,
    providers: Providers,
    *,
    cache_dir: Path,
    dimensions: int | None,
    forms: TextForms = ONE_FORM,
    capabilities: Capabilities | None = None,
) -> Embedder | None:
    """Return the embedder that `setting` names, not yet warmed up; None for `none`.

    Raises ValueError for a setting that names none, or lacks what it needs.
    """
    if setting == "none":
        return None
    if setting == "fake:hashed":
        return FakeEmbedder(dimensions or 64)
    if setting == "local:all-MiniLM-L6-v2":
        if dimensions not in {None, 384}:
            raise ValueError(f"{setting} has 384 dimensions, not {dimensions}; leave them unset")
        if forms != ONE_FORM:
            raise ValueError(f"{setting} needs neither prefixes nor input types; leave them unset")
        local: Embedder = _import_embedder("local").LocalEmbedder(cache_dir)
        return local
    provider, model = _find_embedding_provider(setting, providers)
    remote: Embedder = _import_embedder("openai").OpenAIEmbedder(
        model, provider, dimensions=dimensions, forms=forms, capabilities=capabilities
    )
    return remote


def _find_embedding_provider(setting: str, providers: Providers) -> tuple[Provider, str]:
    able = {name: one for name, one in providers.items() if one.kind == "openai"}
    found = find_provider(setting, able)
    if found is None:
        remote = ", ".join(f"{name}:MODEL" for name in sorted(able))
        accepted = f"local:all-MiniLM-L6-v2, {remote}, fake:hashed (for tests) or none"
        raise ValueError(f"no embedder is called {setting!r}; choose {accepted}")
    return found


def _import_embedder(name: str) -> Any:
    """Import only what is configured: each SDK takes tens of megabytes and a good second."""
    return importlib.import_module(f"app.providers.{name}_embedder")
