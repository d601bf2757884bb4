"""Refusals of a connection or request before the application sees it."""

from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from app.errors import AppError
from app.http.problems import MEDIA_TYPE, as_problem
from app.http.request_context import request_id_of

LEAST_CHUNK_BYTES = 64
"""On average, beyond the first chunks: each chunk costs the same time, whatever its size."""


class HeadTooLargeError(AppError):
    """The request line and headers are too large."""

    status = 431
    code = "headers_too_large"
    title = "Headers too large"

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"The request line and headers are larger than {limit:,} bytes together; send fewer."
        )


class InvalidHttpError(AppError):
    """The bytes on the connection are not an HTTP request."""

    status = 400
    code = "invalid_http"
    title = "Invalid HTTP"

    def __init__(self) -> None:
        super().__init__("The request is not valid HTTP/1.1; send it with an HTTP client.")


class TinyChunksError(AppError):
    """The body comes in too many chunks for its size."""

    status = 400
    code = "tiny_chunks"
    title = "Tiny chunks"

    def __init__(self) -> None:
        super().__init__(
            f"The body comes in chunks of fewer than {LEAST_CHUNK_BYTES} bytes on average; "
            "send larger ones.",
        )


class RequestTimeoutError(AppError):
    """The request took too long to arrive."""

    status = 408
    code = "request_timeout"
    title = "Request timeout"

    def __init__(self, part: str, seconds: float) -> None:
        super().__init__(f"The {part} did not arrive within {seconds:g} s; send it faster.")


class Refusal:
    """An encoded error response, but for the request's id."""

    def __init__(self, error: AppError) -> None:
        self._body = orjson.dumps(as_problem(error))
        headers = {
            "content-type": MEDIA_TYPE,
            "content-length": str(len(self._body)),
            **error.headers,
        }
        lines = [f"{name}: {value}\r\n".encode() for name, value in headers.items()]
        self._head = b"".join([STATUS_LINE[error.status], *lines, b"x-request-id: "])

    def encode(self, scope: Any, *, keep_alive: bool) -> bytes:
        """Return the response; `scope` is None if the request's headers have not arrived."""
        request_id = request_id_of(scope or {"headers": ()})
        end = b"\r\n\r\n" if keep_alive else b"\r\nconnection: close\r\n\r\n"
        body = b"" if scope is not None and scope["method"] == "HEAD" else self._body
        return b"".join((self._head, request_id, end, body))
