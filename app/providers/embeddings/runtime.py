"""ONNX Runtime, silenced: since 1.31 it reports usage to its vendor by default."""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read once, when the library is loaded

import onnxruntime

__all__ = ["onnxruntime"]
