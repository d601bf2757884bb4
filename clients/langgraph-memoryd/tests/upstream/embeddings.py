"""The embeddings of LangGraph's tests, served as OpenAI's API serves them.

As a process: `python embeddings.py DIRECTORY`, where the directory holds LangGraph's tests; it
prints the port that it listens on.
"""

import importlib
import json
import string
import sys
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from typing_extensions import override

DIMENSIONS = 500
"""The query of every test."""


def settle(embeddings: Any) -> None:
    """Fix the vectors of characters, which otherwise depend on which of them is met first."""
    for character in string.printable:
        embeddings._char_projections[character]  # noqa: SLF001  # made when it is looked up


def _embedder() -> Any:
    embeddings = importlib.import_module("tests.embed_test_utils").CharacterEmbeddings(DIMENSIONS)
    settle(embeddings)
    return embeddings


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        embedder = _embedder()
        self.embedded = cache(lambda text: json.dumps(embedder.embed_query(text)))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:  # the name that the library calls
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        vectors = [self.server.embedded(text) for text in request["input"]]
        data = [f'{{"index":{place},"embedding":{v}}}' for place, v in enumerate(vectors)]
        body = f'{{"object":"list","data":[{",".join(data)}]}}'.encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    @override
    def log_message(self, *_: Any) -> None:
        """Say nothing of requests."""


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    listening = _Server()
    print(listening.server_port, flush=True)  # noqa: T201
    listening.serve_forever()
