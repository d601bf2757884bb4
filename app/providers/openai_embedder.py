"""Embeddings from OpenAI, or from any server that speaks its API."""

import asyncio
import base64
import binascii
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import openai

from app.providers.embedder import Vector, split_by_characters
from app.providers.errors import MisconfiguredError, UnavailableError
from app.providers.http import limit_time, parse_reply, provider_client, request_deadline
from app.providers.openai_errors import translate_error

_PASSAGE_CHARACTERS = 6_000
"""Below the 8,191 tokens of OpenAI's models even for Chinese, at about 1.3 tokens a character."""

_REQUEST_TEXTS = 32
"""Maximum texts a request; the default limit of the strictest common server."""

_REQUEST_CHARACTERS = 100_000
"""Maximum characters a request: below OpenAI's 300,000 tokens in any script."""

_REQUESTS_AT_ONCE = 4

MAX_REPLY_BYTES = 4 << 20
_MAX_NUMBERS = 32 * 8_192
_MAX_DIMENSIONS = 8_192
"""Twice the longest vectors that models return; a reply has up to 32."""


class OpenAIEmbedder:
    """Embeds with `model` at `base_url`, or at OpenAI itself when there is none.

    `dimensions` asks the model for shorter vectors; without it `warm_up` finds out the length.
    """

    def __init__(
        self,
        model: str,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        dimensions: int | None = None,
        max_retries: int = 2,
        timeout: float = 30,
    ) -> None:
        self.name = f"openai:{model}"
        self._model = model
        self._api_key = api_key
        self._asked_dimensions = dimensions
        self._known_dimensions = dimensions
        self._limit = asyncio.Semaphore(_REQUESTS_AT_ONCE)
        self._client = openai.AsyncOpenAI(
            # Self-hosted servers often need no key, but the SDK requires one.
            api_key=api_key or "none",
            base_url=base_url,
            max_retries=max_retries,
            timeout=timeout,
            http_client=provider_client(MAX_REPLY_BYTES),
        )
        self._deadline = request_deadline(timeout, max_retries)

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

    async def probe(self) -> int:
        """Return the model's dimensions by embedding a short text."""
        (vector,) = await self._request(["dimensions"])
        return len(vector)

    async def embed(self, texts: Sequence[str], *, urgent: bool = False) -> list[Vector]:  # noqa: ARG002 - the provider knows no urgency
        """Return one vector a text, from as many requests as their sizes need."""
        requests = (self._request(part) for part in _batches(texts))
        answers = await asyncio.gather(*requests, return_exceptions=True)
        vectors: list[Vector] = []
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
            vectors.extend(answer)
        return vectors

    def split(self, text: str) -> list[str]:
        """Split `text` into passages of at most 6,000 characters.

        That is an estimate: it fits models that read 8,000 tokens, in nearly every script.
        """
        return split_by_characters(text, _PASSAGE_CHARACTERS)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _request(self, texts: list[str]) -> list[Vector]:
        if self._client.is_closed():
            raise UnavailableError(f"{self.name} is closed; start the server again")
        dimensions = self._asked_dimensions
        try:
            async with self._limit, limit_time(self._deadline, self.name):
                # Parsed here: compatible servers send less regular replies than the SDK expects.
                response = await self._client.embeddings.with_raw_response.create(
                    model=self._model,
                    input=texts,
                    dimensions=openai.omit if dimensions is None else dimensions,
                )
        except openai.OpenAIError as error:
            raise translate_error(self.name, error, self._api_key) from None  # it may show the key
        return await asyncio.to_thread(self._vectors, response.content, len(texts))

    def _vectors(self, body: bytes, count: int) -> list[Vector]:
        try:
            reply = parse_reply(body, max_bytes=MAX_REPLY_BYTES, max_values=_MAX_NUMBERS)
            answers = sorted(reply["data"], key=lambda answer: answer["index"])
            vectors = [_unit(answer["embedding"]) for answer in answers[: count + 1]]
        except (ValueError, TypeError, KeyError, OverflowError, binascii.Error) as error:
            raise UnavailableError(
                f"{self.name} answered with something else than embeddings; "
                "check that the base URL is that of an OpenAI-compatible server"
            ) from error
        if len(vectors) != count:
            raise UnavailableError(f"{self.name} gave {len(vectors)} vectors for {count} texts")
        self._check_dimensions({len(vector) for vector in vectors})
        return vectors

    def _check_dimensions(self, lengths: set[int]) -> None:
        if self._known_dimensions is None and len(lengths) == 1:
            (self._known_dimensions,) = lengths
        if lengths != {self._known_dimensions}:
            raise MisconfiguredError(
                f"{self.name} gives {', '.join(map(str, sorted(lengths)))} dimensions, not the "
                f"expected {self._known_dimensions}; set the number that the model gives"
            )


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    """Yield the texts in batches that fit into one request."""
    part: list[str] = []
    characters = 0
    for text in texts:
        characters += len(text)
        if part and (len(part) == _REQUEST_TEXTS or characters > _REQUEST_CHARACTERS):
            yield part
            part, characters = [], len(text)
        part.append(text)
    if part:
        yield part


def _unit(embedding: Any) -> Vector:
    """Return the unit vector of an answer's numbers, which are a list or base64."""
    if isinstance(embedding, str):
        vector = np.frombuffer(base64.b64decode(embedding, validate=True), dtype="<f4")
    else:
        numbers = np.asarray(embedding)
        if numbers.dtype.kind not in "iuf":
            raise ValueError("an embedding is a list of numbers")
        vector = numbers.astype(np.float32)
    if vector.size > _MAX_DIMENSIONS:
        raise ValueError(f"an embedding has at most {_MAX_DIMENSIONS:,} dimensions")
    length = float(np.linalg.norm(vector))
    if vector.ndim != 1 or not np.isfinite(length) or length == 0:
        raise ValueError("an embedding is a list of finite numbers, not all of them zero")
    return np.asarray(vector / length, dtype=np.float32)
