"""all-MiniLM-L6-v2 on ONNX Runtime, inside this process.

ONNX Runtime is silenced: since 1.31 it reports usage to its vendor by default.
"""

import asyncio
import os
import subprocess
import sys
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TypeVar

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read once, when the library is loaded

import numpy as np
import onnxruntime
from tokenizers import Encoding, Tokenizer

from app.providers.embedder import ONE_FORM, Outcome, TextKind, Vector, spans, split_text
from app.providers.errors import ProviderError, UnavailableError
from app.providers.model_files import (
    DIMENSIONS,
    GRAPH_FILE,
    MAX_TOKENS,
    graph_directory,
    published_file,
)

Argument = TypeVar("Argument")
Result = TypeVar("Result")

_SPECIAL_TOKENS = 2
"""[CLS] and [SEP] around every text."""

_BATCH_TEXTS = 32
_BATCH_TOKENS = 512
"""Padding included: larger batches are no faster, take more memory and keep queries waiting."""

_SLAB_CHARACTERS = 50_000
"""Characters tokenized at once: the tokens of a megabyte would take 100 MB."""

_MAX_THREADS = 4
"""Maximum threads of one run: batches this small gain little from more."""


class LocalEmbedder:
    """Embeds in a thread of its own; the model is loaded on first use or by `warm_up`."""

    name = "local:all-MiniLM-L6-v2"
    dimensions = DIMENSIONS
    forms = ONE_FORM

    def __init__(self, cache_dir: Path) -> None:
        self._cache_dir = cache_dir
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="local-embedder")

    async def warm_up(self, *, load: bool = True) -> None:
        """Load the model; the first time on a machine this also builds its graph."""
        if load:
            await self.embed(["warm up"])

    def assume_dimensions(self, dimensions: int) -> None:
        """Do nothing: they are known."""

    async def embed(self, texts: Sequence[str], *, kind: TextKind = "passage") -> list[Vector]:  # noqa: ARG002 - batches are short enough that no query waits for long
        """Return one vector a text; the model ignores the end of a long text, so `split` it."""
        encodings = await self._in_thread(self._tokenize, texts)
        vectors: dict[int, Vector] = {}
        # One batch a turn, so that the batches of several callers alternate.
        for batch in _batches(encodings):
            rows = await self._in_thread(self._run, [encodings[index] for index in batch])
            vectors.update(zip(batch, rows, strict=True))
        return [vectors[index] for index in range(len(texts))]

    async def embed_each(
        self, texts: Sequence[str], *, kind: TextKind = "passage"
    ) -> list[Outcome]:
        """Return one vector a text, or for each the error of all: this model refuses none."""
        try:
            return [*await self.embed(texts, kind=kind)]
        except ProviderError as error:
            return [error] * len(texts)

    def split(self, text: str) -> list[str]:
        """Split `text` into passages of at most 256 word pieces."""
        stripped = text.strip()
        slabs = spans(stripped, lambda start: start + _SLAB_CHARACTERS, overlap=0)
        passages = [self._split_slab(stripped[start:end]) for start, end in slabs]
        return list(chain.from_iterable(passages))

    async def aclose(self) -> None:
        """Stop the thread after its pending batches."""
        await asyncio.to_thread(self._thread.shutdown)

    async def _in_thread(
        self, function: Callable[[Argument], Result], argument: Argument
    ) -> Result:
        try:
            future = self._thread.submit(function, argument)
        except RuntimeError as error:
            raise UnavailableError(f"{self.name} is closed; start the server again") from error
        return await asyncio.wrap_future(future)

    def _split_slab(self, text: str) -> list[str]:
        words = Words(self._tokenizer.encode(text, add_special_tokens=False))
        return split_text(text, words.reach)

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        tokenizer = Tokenizer.from_file(str(published_file("tokenizer.json")))
        # The published file pads and truncates every text to 128.
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer

    @cached_property
    def _session(self) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = min(_MAX_THREADS, os.cpu_count() or 1)
        # Waiting threads would otherwise spin on cores that the database needs, too.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.enable_mem_pattern = False
        return onnxruntime.InferenceSession(
            _graph(self._cache_dir), options, providers=["CPUExecutionProvider"]
        )

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of each text; what is beyond the model's reach falls away."""
        encodings = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts))]
        return [
            ids if len(ids) <= MAX_TOKENS else [*ids[: MAX_TOKENS - 1], ids[-1]]
            for ids in encodings
        ]

    def _run(self, batch: Sequence[list[int]]) -> list[Vector]:
        shape = (len(batch), max(map(len, batch)))
        ids, mask = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        (rows,) = self._session.run(None, {"input_ids": ids, "attention_mask": mask})
        # Copies, so that one vector in a cache does not keep the batch.
        return [row.copy() for row in rows]


def _batches(texts: Sequence[list[int]]) -> Iterator[list[int]]:
    """Yield the indices of texts to run together: of like length, to pad little."""
    batch: list[int] = []
    for index in sorted(range(len(texts)), key=lambda index: len(texts[index])):
        tokens = len(texts[index]) * (len(batch) + 1)
        if batch and (tokens > _BATCH_TOKENS or len(batch) == _BATCH_TEXTS):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


class Words:
    """The offsets of the words of a tokenized text, and the reach of a passage from each of them.

    A word has at most 100 tokens (the tokenizer replaces longer ones with the unknown token), so
    one always begins within a passage's reach.
    """

    def __init__(self, encoding: Encoding) -> None:
        self._offsets = [start for start, _ in encoding.offsets]
        self._word_of = encoding.word_ids

    def reach(self, start: int) -> int:
        """Return the end of the longest passage from `start`, or a number beyond any text."""
        first = bisect_left(self._offsets, start)
        beyond = first + MAX_TOKENS - _SPECIAL_TOKENS
        if beyond >= len(self._offsets):
            return sys.maxsize
        while self._word_of[beyond] is not None and (
            self._word_of[beyond] == self._word_of[beyond - 1]
        ):
            beyond -= 1
        return self._offsets[beyond]


def _graph(cache_dir: Path) -> Path:
    """Return the cached graph's file, built by another process if it is not there."""
    file = graph_directory(cache_dir) / GRAPH_FILE
    if file.exists():
        return file
    command = [sys.executable, "-m", "app.providers.onnx_graph", str(cache_dir)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own module
    if built.returncode:
        reason = built.stderr.strip().rpartition("\n")[2]
        raise UnavailableError(
            f"the local model could not be prepared in {cache_dir}: {reason or 'no reason given'}"
        )
    return file
