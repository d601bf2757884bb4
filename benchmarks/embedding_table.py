"""An OpenAI-compatible embeddings server that uses a table of vectors instead of a model.

    python -m benchmarks.embedding_table PORT

Answers come in base64 of little-endian float32 when asked for, as OpenAI's client does.
"""

import base64
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import uvicorn

from benchmarks.vectors import Vectors, mean_vector

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


def answer(request: dict[str, Any]) -> bytes:
    """Return the body that OpenAI's API would send for this request."""
    texts = request["input"] if isinstance(request["input"], list) else [request["input"]]
    encoded = request.get("encoding_format") == "base64"
    return orjson.dumps(
        {
            "object": "list",
            "model": request.get("model", "bench"),
            "data": [
                {
                    "object": "embedding",
                    "index": n,
                    "embedding": _written(mean_vector(text), encoded),
                }
                for n, text in enumerate(texts)
            ],
            "usage": {"prompt_tokens": 0, "total_tokens": 0},
        }
    )


def _written(vector: Vectors, encoded: bool) -> object:
    return base64.b64encode(vector.tobytes()).decode() if encoded else vector.tolist()


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Answer any POST as an embeddings request and any GET as a health check."""
    if scope["type"] != "http":
        return
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    content = answer(orjson.loads(body)) if scope["method"] == "POST" else b"{}"
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})


if __name__ == "__main__":
    uvicorn.run(
        app,
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        lifespan="off",
        access_log=False,
        log_level="warning",
    )
