"""The embeddings of LangGraph's tests, served as OpenAI's API serves them.

As a process: `python embeddings.py DIRECTORY PORT`, where the directory holds LangGraph's tests.
"""

import json
import string
import sys
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

DIMENSIONS = 500
"""What every test asks for."""


def settle(embeddings: Any) -> None:
    """Fix the vectors of characters, which otherwise depend on which of them is met first."""
    for character in string.printable:
        embeddings._char_projections[character]  # noqa: B018, SLF001  # made when it is looked up


def _embedder() -> Any:
    from tests.embed_test_utils import CharacterEmbeddings  # noqa: PLC0415  # LangGraph's tests

    embeddings = CharacterEmbeddings(dims=DIMENSIONS)
    settle(embeddings)
    return embeddings


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:  # noqa: N802  # the name that the library calls
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        vectors = [self.server.embed(text) for text in request["input"]]  # type: ignore[attr-defined]
        data = [{"index": place, "embedding": vector} for place, vector in enumerate(vectors)]
        body = json.dumps({"object": "list", "data": data}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing of requests."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.embed = cache(_embedder().embed_query)


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    _Server(int(sys.argv[2])).serve_forever()
