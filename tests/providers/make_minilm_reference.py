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

_STORY = (
    "In the spring the ferry began to run again, and with it came the beekeepers, who carried "
    "their hives across the sound in boxes wrapped in wet linen. "
)
SENTENCES = [
    "Hello",
    "?",
    ".",
    "7",
    "a",
    "Where did she park the car?",
    "The user prefers window seats and vegetarian meals.",
    "My sister Inés moved from Göteborg to São Paulo in 2019.",
    "Call me at +44 20 7946 0018 before 17:45, order no. 000-4471-B.",
    "3.14159 2.71828 1.41421 1.61803",
    "她在上海的一家书店工作，周末喜欢爬山。",  # noqa: RUF001 - Chinese
    "昨日、京都で古い友人に会いました。",
    "우리는 내년에 부산으로 이사할 계획이다.",
    "Завтра утром у врача, не забыть анализы.",  # noqa: RUF001 - Russian
    "يفضل القهوة بدون سكر",
    "🎉🎂 happy birthday!!! 🥳",
    "😀",
    "def area(r): return math.pi * r ** 2  # square metres",
    "SELECT name FROM boats WHERE length > 12 ORDER BY name;",
    "antidisestablishmentarianism floccinaucinihilipilification",
    "I don't think he's allergic to nuts, but he can't stand celery; it's the smell, isn't it?",
    "The meeting on Tuesday was moved to Thursday because the projector broke.",
    _STORY * 2,
    _STORY * 7,
]


def main() -> None:
    """Embed the sentences and write them beside this file."""
    library = importlib.import_module("sentence_transformers")
    model = library.SentenceTransformer(sys.argv[1], device="cpu")
    vectors = model.encode(SENTENCES, normalize_embeddings=True).astype("<f4")
    reference = {
        text: base64.b64encode(vector.tobytes()).decode()
        for text, vector in zip(SENTENCES, vectors, strict=True)
    }
    path = Path(__file__).with_name("minilm_reference.json")
    path.write_text(json.dumps(reference, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
