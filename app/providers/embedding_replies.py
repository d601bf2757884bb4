"""Reading the replies of embedding servers, which are less regular than the API says."""

import base64
import binascii
from collections.abc import Sequence
from typing import Any

import numpy as np

from app.providers.embedder import Outcome, Vector
from app.providers.errors import UnavailableError

MAX_DIMENSIONS = 8_192
"""Twice the longest vectors that models return."""

_LISTS = ("data", "embeddings", "embedding")


class MalformedReplyError(ValueError):
    """The reply has no embeddings."""


def read_vectors(reply: Any, count: int, name: str) -> list[Outcome]:
    """Return the outcomes of `count` texts; raises MalformedReplyError and UnavailableError.

    A text whose numbers are missing, null, not finite, or all zero has an error of its own.
    """
    answers = _answers(reply)
    if len(answers) != count:
        raise UnavailableError(f"{name} gave {len(answers)} vectors for {count} texts")
    embeddings = [a.get("embedding") if isinstance(a, dict) else a for a in _in_order(answers)]
    vectors = [_unit(embedding) for embedding in embeddings]
    unusable = UnavailableError(f"{name} gave no usable vector: null, not finite, or all zero")
    return [unusable if vector is None else vector for vector in vectors]


def _answers(reply: Any) -> list[Any]:
    """Return the list of embeddings in a reply, which may be that list itself."""
    found = reply
    if isinstance(reply, dict):
        found = next((reply[name] for name in _LISTS if reply.get(name) is not None), None)
    if not isinstance(found, list):
        raise MalformedReplyError("it has no list of embeddings")
    if found and all(isinstance(number, int | float) for number in found):
        return [found]
    if not all(isinstance(answer, dict | list | str) for answer in found):
        raise MalformedReplyError("its list has something else than embeddings")
    return found


def _in_order(answers: Sequence[Any]) -> Sequence[Any]:
    """Return embeddings in the order of the texts.

    Their indexes tell it if they are all different; one that is left out is then known, too.
    Otherwise the order is that of the list.
    """
    indexes = [answer.get("index") if isinstance(answer, dict) else None for answer in answers]
    missing = [place for place, index in enumerate(indexes) if not _is_index(index)]
    given = {index for index in indexes if _is_index(index)}
    if len(missing) == 1 and len(answers) > 1:
        left = set(range(len(answers))) - given
        if len(left) == 1:
            indexes[missing[0]] = left.pop()
            missing, given = [], set(range(len(answers)))
    if missing or len(given) < len(answers):
        return answers
    places = sorted(range(len(answers)), key=lambda place: indexes[place] or 0)
    return [answers[place] for place in places]


def _is_index(index: object) -> bool:
    return isinstance(index, int) and not isinstance(index, bool) and index >= 0


def _unit(embedding: Any) -> Vector | None:
    """Return the unit vector of a list or of base64; None if it is not usable."""
    try:
        vector = _numbers(embedding)
    except (ValueError, TypeError, OverflowError, binascii.Error):
        return None
    while vector.ndim > 1 and len(vector) == 1:
        vector = vector[0]
    if vector.size > MAX_DIMENSIONS or vector.ndim != 1:
        raise MalformedReplyError(f"an embedding is a list of at most {MAX_DIMENSIONS:,} numbers")
    length = float(np.linalg.norm(vector))
    if not np.isfinite(length) or length == 0:
        return None
    return np.asarray(vector / length, dtype=np.float32)


def _numbers(embedding: Any) -> Vector:
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding, validate=True), dtype="<f4")
    numbers = np.asarray(embedding)
    if numbers.dtype.kind not in "iuf":
        raise ValueError("an embedding is a list of numbers")
    return numbers.astype(np.float32)
