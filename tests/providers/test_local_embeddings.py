import asyncio
import base64
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from app.providers.errors import UnavailableError
from app.providers.local_embedder import LocalEmbedder
from app.providers.model_files import graph_directory, published_file
from app.providers.onnx_graph import read_weights

REFERENCE = json.loads(Path(__file__).with_name("minilm_reference.json").read_text("utf-8"))


async def test_vectors_agree_with_sentence_transformers(local: LocalEmbedder) -> None:
    vectors = await local.embed(list(REFERENCE))
    cosines = {
        text: float(vector @ np.frombuffer(base64.b64decode(encoded), "<f4"))
        for (text, encoded), vector in zip(REFERENCE.items(), vectors, strict=True)
    }
    assert {text: cosine for text, cosine in cosines.items() if cosine < 0.98} == {}
    assert np.mean(list(cosines.values())) > 0.997


async def test_what_is_beyond_the_model_does_not_change_the_vector(local: LocalEmbedder) -> None:
    full = "word " * 254
    cut, longer = await local.embed([full, full + "and much more " * 100])
    np.testing.assert_allclose(cut, longer, atol=1e-5)


@pytest.mark.slow
async def test_the_event_loop_runs_on_while_the_model_works(local: LocalEmbedder) -> None:
    await local.warm_up()
    work = asyncio.create_task(local.embed([f"a sentence about {n} bees" for n in range(300)]))
    turns = 0
    while not work.done():
        await asyncio.sleep(0.002)
        turns += 1
    assert turns > 10


@pytest.mark.slow
def test_processes_that_build_at_once_leave_one_graph(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "app.providers.onnx_graph", str(tmp_path)]
    builders = [subprocess.Popen(command) for _ in range(2)]
    assert [builder.wait() for builder in builders] == [0, 0]
    assert list(tmp_path.iterdir()) == [graph_directory(tmp_path)]
    assert sorted(file.name for file in graph_directory(tmp_path).iterdir()) == [
        "graph.data",
        "graph.onnx",
    ]


@pytest.mark.slow
def test_other_weights_are_refused(tmp_path: Path) -> None:
    damaged = bytearray(published_file("model.safetensors").read_bytes())
    damaged[-1] ^= 1
    copy = tmp_path / "model.safetensors"
    copy.write_bytes(damaged)
    with pytest.raises(ValueError, match="Reinstall the package"):
        read_weights(copy)


@pytest.mark.slow
async def test_a_cache_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    embedder = LocalEmbedder(blocked / "models")
    with pytest.raises(UnavailableError, match="could not be prepared"):
        await embedder.warm_up()
    await embedder.aclose()
