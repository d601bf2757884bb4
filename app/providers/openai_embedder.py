"""Embeddings from OpenAI, or from any server that speaks its API."""

import asyncio
import random
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import httpx2
import numpy as np
import openai

from app.json_values import JsonObject
from app.providers.capabilities import Capabilities, ServedModel
from app.providers.embedder import (
    ONE_FORM,
    Outcome,
    TextForm,
    TextForms,
    TextKind,
    Vector,
    split_by_characters,
    vectors_of,
)
from app.providers.embedding_division import (
    HARMLESS_TEXT,
    REQUESTS_AT_ONCE,
    Division,
    EmbeddingLimits,
)
from app.providers.embedding_replies import read_vectors
from app.providers.error_replies import find_error, to_error
from app.providers.errors import (
    BadRequestError,
    MisconfiguredError,
    ProviderError,
    RequestTooLongError,
    UnavailableError,
)
from app.providers.http import limit_time, parse_reply, request_deadline
from app.providers.openai_client import open_client, translate_error
from app.providers.provider import Provider

_PASSAGE_CHARACTERS = 6_000
"""Below the 8,191 tokens of OpenAI's models even for Chinese, at about 1.3 tokens a character."""

_SHORTEST_PASSAGE = 600
"""Texts are not cut shorter, lest a long one has too many passages; the parts are averaged."""

_REQUEST_TEXTS = 32
"""Maximum texts a request; the default limit of the strictest common server."""

_REQUEST_CHARACTERS = 100_000
"""Maximum characters a request: below OpenAI's 300,000 tokens in any script."""

MAX_REPLY_BYTES = 4 << 20
_MAX_NUMBERS = 32 * 8_192

_MOST_CUTS = 6
"""Times that texts are cut shorter before the model's refusal is final."""

_SILENT_SECONDS = 15.0
"""Seconds for which a server is not asked that left a harmless text without an answer."""

_LONGEST_WAIT = 60.0
"""Seconds that a provider may ask to wait before a request is repeated here."""

_OPTIONAL = {
    "encoding_format": re.compile(r"encoding_?format|base64", re.IGNORECASE),
    "dimensions": re.compile(r"dimension|matryoshka", re.IGNORECASE),
}
"""Members of a request that some servers refuse, and words of such a refusal."""


class _SilentError(UnavailableError):
    """The server took too long to answer."""


class OpenAIEmbedder:
    """Embeds with `model` of a provider that speaks OpenAI's API.

    `dimensions` asks the model for shorter vectors; without it `warm_up` finds out the length.
    """

    def __init__(  # noqa: PLR0913 - all but two have defaults
        self,
        model: str,
        provider: Provider,
        *,
        dimensions: int | None = None,
        forms: TextForms = ONE_FORM,
        max_retries: int = 2,
        timeout: float = 30,
        capabilities: Capabilities | None = None,
    ) -> None:
        self.name = f"{provider.name}:{model}"
        self.forms = forms
        self._model = model
        self._api_key = provider.api_key
        self._asked_dimensions = dimensions
        self._known_dimensions = dimensions
        self._at_once = asyncio.Semaphore(REQUESTS_AT_ONCE)
        self._max_retries = max_retries
        self._short_patience = _Patience(timeout / 3, 0)
        self._silent_until = 0.0
        # `_post` has its own retries: a text that takes too long must not be sent again.
        self._client = open_client(
            provider, timeout=timeout, max_retries=0, max_bytes=MAX_REPLY_BYTES
        )
        self._limits = EmbeddingLimits(
            capabilities or Capabilities(),
            ServedModel(provider.address, model),
            texts=_REQUEST_TEXTS,
            characters=_REQUEST_CHARACTERS,
        )
        self._timeout = timeout

    @property
    def dimensions(self) -> int:
        """The length of a vector; raises MisconfiguredError before it is known."""
        if self._known_dimensions is None:
            raise MisconfiguredError(f"{self.name} has unknown dimensions; warm it up first")
        return self._known_dimensions

    async def warm_up(self, *, load: bool = True) -> None:  # noqa: ARG002 - nothing is loaded
        """Find out the dimensions unless they are configured."""
        if self._known_dimensions is None:
            await self.probe()

    def assume_dimensions(self, dimensions: int) -> None:
        """Take vectors to have this length, if theirs is not known yet."""
        self._known_dimensions = self._known_dimensions or dimensions

    async def probe(self) -> int:
        """Return the model's dimensions by embedding a short text."""
        (vector,) = await self.embed(["dimensions"])
        return len(vector)

    async def embed(self, texts: Sequence[str], *, kind: TextKind = "passage") -> list[Vector]:
        """Return one vector a text, from as many requests as their sizes need."""
        return vectors_of(await self.embed_each(texts, kind=kind))

    async def embed_each(
        self, texts: Sequence[str], *, kind: TextKind = "passage"
    ) -> list[Outcome]:
        """Return for each text its vector or its error.

        A text that is longer than the model reads has the mean of the vectors of its parts.
        """
        outcomes: dict[str, Outcome] = {}
        missing = list(dict.fromkeys(texts))
        for _ in range(_MOST_CUTS):
            limit = self._limits.passage
            outcomes |= await self._embed_in_parts(missing, limit, self.forms.of(kind))
            missing = [t for t in missing if isinstance(outcomes[t], RequestTooLongError)]
            if not missing or self._limits.passage == limit:
                break
        return [outcomes[text] for text in texts]

    def split(self, text: str) -> list[str]:
        """Split `text` into passages of at most 6,000 characters, or fewer if the model reads less.

        That is an estimate: it fits models that read 8,000 tokens, in nearly every script.
        """
        most = _PASSAGE_CHARACTERS - len(self.forms.passage.prefix)
        limit = min(most, self._limits.passage or most)
        return split_by_characters(text, max(_SHORTEST_PASSAGE, limit))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _embed_in_parts(
        self, texts: list[str], limit: int | None, form: TextForm
    ) -> dict[str, Outcome]:
        parts = {text: _parts(text, limit) for text in texts}
        division = Division(
            partial(self._part_request, form), partial(self._works, form), self._limits
        )
        each_part = [part for of_text in parts.values() for part in of_text]
        requests = list(_batches(each_part, self._limits, len(form.prefix)))
        first_request = partial(self._first_request, form)
        runs = (division.run(request, first_request) for request in requests)
        found = [outcome for run in await asyncio.gather(*runs) for outcome in run]
        each = iter(found)
        return {
            text: _mean(of_text, [next(each) for _ in of_text]) for text, of_text in parts.items()
        }

    async def _first_request(self, form: TextForm, texts: list[str]) -> list[Outcome]:
        return await self._request(form, texts, _Patience(self._timeout, self._max_retries))

    async def _part_request(self, form: TextForm, texts: list[str]) -> list[Outcome]:
        return await self._request(form, texts, self._short_patience)

    async def _request(
        self, form: TextForm, texts: list[str], patience: "_Patience"
    ) -> list[Outcome]:
        """Make a request; without a member that the server names in a refusal."""
        if time.monotonic() < self._silent_until:
            raise _SilentError(f"{self.name} did not answer lately; it is asked again soon")
        try:
            return await self._send(form, texts, patience, self._limits.refused)
        except (BadRequestError, UnavailableError) as error:
            blamed = {name for name in self._sent() if _OPTIONAL[name].search(error.words)}
            if not blamed:
                raise
            try:
                return await self._send_without(form, texts, frozenset(blamed), error)
            except (BadRequestError, UnavailableError):
                raise error from None

    async def _works(self, form: TextForm) -> bool:
        """Return whether the server embeds a harmless text, if need be without optional members."""
        if time.monotonic() < self._silent_until:
            return False
        optional = self._sent()
        refusal: ProviderError | None = None
        for count in range(len(optional) + 1):
            for left_out in combinations(optional, count):
                try:
                    await self._send_without(form, [HARMLESS_TEXT], frozenset(left_out), refusal)
                except BadRequestError as error:
                    refusal = error
                    continue
                except _SilentError:
                    self._silent_until = time.monotonic() + _SILENT_SECONDS
                    return False
                except ProviderError:
                    return False
                return True
        return False

    def _sent(self) -> list[str]:
        """Return the optional members of the present requests."""
        asked = ["encoding_format", *(["dimensions"] if self._asked_dimensions else [])]
        return [name for name in asked if name not in self._limits.refused]

    async def _send_without(
        self,
        form: TextForm,
        texts: list[str],
        members: frozenset[str],
        error: ProviderError | None,
    ) -> list[Outcome]:
        outcomes = await self._send(
            form, texts, self._short_patience, self._limits.refused | members
        )
        self._limits.learn_refusal(members, error)
        return outcomes

    async def _send(
        self, form: TextForm, texts: list[str], patience: "_Patience", refused: frozenset[str]
    ) -> list[Outcome]:
        if self._client.is_closed():
            raise UnavailableError(f"{self.name} is closed; start the server again")
        optional = {
            "encoding_format": "base64",
            "dimensions": self._asked_dimensions,
            "input_type": form.input_type,
        }
        body = {
            "model": self._model,
            # Many servers refuse blank texts.
            "input": [form.prefix + (text if text.strip() else ".") for text in texts],
            **{k: v for k, v in optional.items() if v is not None and k not in refused},
        }
        deadline = request_deadline(patience.seconds, patience.retries)
        try:
            async with self._at_once, limit_time(deadline, self.name):
                # Parsed here: compatible servers send less regular replies than the SDK expects.
                response = await self._post(body, patience)
        except openai.APITimeoutError as error:
            raise _SilentError(f"{self.name} cannot be reached: {error}") from None
        except openai.OpenAIError as error:
            raise translate_error(self.name, error, self._api_key) from None  # it may show the key
        return await asyncio.to_thread(self._outcomes, response.content, len(texts))

    async def _post(self, body: JsonObject, patience: "_Patience") -> httpx2.Response:
        """Send a request, and repeat it after a failure that may pass, unless by silence."""

        async def send() -> httpx2.Response:
            return await self._client.post(
                "/embeddings",
                cast_to=httpx2.Response,
                body=body,
                options={"timeout": patience.seconds},
            )

        for wait in patience.waits():
            try:
                return await send()
            except openai.APITimeoutError:
                raise
            except openai.APIConnectionError:
                asked = None
            except openai.APIStatusError as error:
                failure = translate_error(self.name, error, self._api_key)
                asked = failure.retry_after
                is_final = error.response.headers.get("x-should-retry") == "false"
                if not failure.retryable or is_final or (asked or 0) > _LONGEST_WAIT:
                    raise
            await asyncio.sleep(wait if asked is None else asked)
        return await send()

    def _outcomes(self, body: bytes, count: int) -> list[Outcome]:
        try:
            reply = parse_reply(body, max_bytes=MAX_REPLY_BYTES, max_values=_MAX_NUMBERS)
            if failure := find_error(reply):
                raise to_error(self.name, failure, self._api_key)
            outcomes = read_vectors(reply, count, self.name)
        except ValueError as error:
            raise UnavailableError(
                f"{self.name} answered with something else than embeddings; "
                "check that the base URL is that of an OpenAI-compatible server"
            ) from error
        return self._with_dimensions(outcomes)

    def _with_dimensions(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Cut vectors to the dimensions that were asked for; raises MisconfiguredError."""
        vectors = [one for one in outcomes if isinstance(one, np.ndarray)]
        lengths = {len(vector) for vector in vectors}
        wanted = self._known_dimensions
        if wanted is None and len(lengths) == 1:
            (self._known_dimensions,) = lengths
        elif lengths - {wanted}:
            if self._asked_dimensions is None or min(lengths) < self._asked_dimensions:
                raise MisconfiguredError(
                    f"{self.name} gives {', '.join(map(str, sorted(lengths)))} dimensions, not "
                    f"the expected {wanted}; set the number that the model gives"
                )
            return [_cut(one, wanted) if isinstance(one, np.ndarray) else one for one in outcomes]
        return outcomes


@dataclass(frozen=True, slots=True)
class _Patience:
    """How long the server may be silent, and how often a request is repeated."""

    seconds: float
    retries: int

    def waits(self) -> Iterator[float]:
        """Yield the seconds before each repetition, with a random part."""
        for number in range(self.retries):
            yield 2**number * random.uniform(0.4, 0.8)  # noqa: S311


def _batches(texts: Sequence[str], limits: EmbeddingLimits, prefix: int) -> Iterator[list[str]]:
    """Yield the texts in batches that fit into one request, each with a prefix of this length."""
    part: list[str] = []
    characters = 0
    for text in texts:
        characters += prefix + len(text)
        if part and (len(part) >= limits.texts or characters > limits.characters):
            yield part
            part, characters = [], prefix + len(text)
        part.append(text)
    if part:
        yield part


def _parts(text: str, limit: int | None) -> list[str]:
    return [text] if limit is None or len(text) <= limit else split_by_characters(text, limit)


def _mean(parts: list[str], outcomes: list[Outcome]) -> Outcome:
    """Return the mean of the parts' vectors, by their lengths, or the first error."""
    if len(parts) == 1:
        return outcomes[0]
    try:
        vectors = vectors_of(outcomes)
    except ProviderError as error:
        return error
    mean = np.average(vectors, axis=0, weights=[len(part) for part in parts])
    length = float(np.linalg.norm(mean))
    return vectors[0] if length == 0 else np.asarray(mean / length, dtype=np.float32)


def _cut(vector: Vector, dimensions: int | None) -> Outcome:
    """Return the unit vector of the first dimensions."""
    cut = vector[:dimensions]
    length = float(np.linalg.norm(cut))
    if length == 0:
        return UnavailableError("the vector's first dimensions are all zero")
    return np.asarray(cut / length, dtype=np.float32)
