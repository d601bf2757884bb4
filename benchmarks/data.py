"""Made-up items and queries, the same for every system and every run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
WORDS = 5_000
TOPICS = 200
WORDS_OF_A_TOPIC = 40
FILTER_BUCKETS = 100

# Numbers of namespaces and of items in each, for 100,000 items.
UNEVEN = {"large": (1, 20_000), "middle": (1, 5_000), "medium": (50, 500), "small": (1_000, 50)}


@dataclass(frozen=True, slots=True)
class Item:
    """One item as every system stores it; only memoryd stores `source`."""

    namespace: tuple[str, ...]
    key: str
    value: dict[str, Any]
    source: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """One search; `namespace` is a prefix."""

    namespace: tuple[str, ...]
    text: str
    filter: dict[str, Any] | None = None
    limit: int = 10


@dataclass(slots=True)
class TextSource:
    """Writes texts of pseudo-words: mostly a topic's own words, some common ones."""

    seed: int
    _rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)

    def texts(self, count: int, *, own_words: int = 9, common_words: int = 4) -> list[str]:
        """Return `count` texts, each about one random topic."""
        topics = self._rng.integers(TOPICS, size=count)
        own = self._rng.integers(WORDS_OF_A_TOPIC, size=(count, own_words))
        own = (topics[:, None] * WORDS_OF_A_TOPIC + own) % WORDS
        common = np.minimum(self._rng.zipf(1.5, size=(count, common_words)), WORDS) - 1
        words = np.concatenate([own, common], axis=1)
        return [" ".join(VOCABULARY[word] for word in row) for row in words]

    def random_numbers(self, count: int, of: int) -> list[int]:
        """Return `count` random numbers below `of`."""
        return [int(pick) for pick in self._rng.integers(of, size=count)]


def _vocabulary() -> list[str]:
    rng = np.random.default_rng(0)
    words: dict[str, None] = {}
    while len(words) < WORDS:
        syllables = rng.integers(len(SYLLABLES), size=int(rng.integers(2, 5)))
        words["".join(SYLLABLES[syllable] for syllable in syllables)] = None
    return list(words)


VOCABULARY = _vocabulary()


def _value(number: int, text: str) -> dict[str, Any]:
    return {"text": text, "number": number, "bucket": number % FILTER_BUCKETS}


def user_items(count: int, users: int) -> list[Item]:
    """Return `count` items distributed over `users` namespaces in turn."""
    texts = TextSource(seed=1).texts(count)
    return [
        Item(("users", f"u{n % users:04d}", "notes"), f"k{n // users:06d}", _value(n, text))
        for n, text in enumerate(texts)
    ]


def more_user_items(count: int, users: int, batch: str) -> Iterator[Item]:
    """Yield items with keys that no other `batch` has, in random users' namespaces."""
    source = TextSource(seed=2)
    for n, (text, user) in enumerate(
        zip(source.texts(count), source.random_numbers(count, users), strict=True)
    ):
        yield Item(("users", f"u{user:04d}", "notes"), f"{batch}{n:06d}", _value(n, text))


def uneven_items(count: int) -> list[Item]:
    """Return about `count` items in namespaces of the sizes in UNEVEN, in random order."""
    places = [
        f"{label}{number:03d}"
        for label, (namespaces, size) in UNEVEN.items()
        for number in range(namespaces)
        for _ in range(size * count // 100_000)
    ]
    texts = TextSource(seed=4).texts(len(places))
    order = np.random.default_rng(3).permutation(len(places))
    return [
        Item(("recall", places[place]), f"k{n:06d}", _value(n, text))
        for n, (place, text) in enumerate(zip(order, texts, strict=True))
    ]


def query_texts(count: int, seed: int = 5) -> list[str]:
    """Return `count` questions about random topics."""
    return TextSource(seed=seed).texts(count, own_words=5, common_words=1)


def batches(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Split items into runs of `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
