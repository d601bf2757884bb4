"""Rewrites minilm_reference.json with the vectors that sentence-transformers gives.

Run it with the Python of an environment that has sentence-transformers and torch, and give it
the directory of the published model:

    HF_HUB_OFFLINE=1 python tests/providers/make_minilm_reference.py MODEL_DIRECTORY
"""

import base64
import importlib
import json
import sys
from pathlib import Path


def main() -> None:
    """Embed the sentences in the file and write it again."""
    path = Path(__file__).with_name("minilm_reference.json")
    sentences = list(json.loads(path.read_text("utf-8")))
    library = importlib.import_module("sentence_transformers")
    model = library.SentenceTransformer(sys.argv[1], device="cpu")
    vectors = model.encode(sentences, normalize_embeddings=True).astype("<f4")
    reference = {
        text: base64.b64encode(vector.tobytes()).decode()
        for text, vector in zip(sentences, vectors, strict=True)
    }
    path.write_text(json.dumps(reference, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
