"""JSON answers; values of items pass through as text (`orjson.Fragment`), never parsed."""

from collections.abc import Mapping
from typing import Any

import orjson
from fastapi import Response

from app.http.conditional import etag

CHUNK_BYTES = 16 << 10
"""Size of the chunks of an answer that is sent as the client takes it."""


def json_response(
    members: Any, headers: Mapping[str, str] | None = None, status: int = 200
) -> Response:
    """Return a JSON answer."""
    return Response(orjson.dumps(members), status, headers, media_type="application/json")


def not_modified(version: int) -> Response:
    """Return the answer to a reader who already has this version."""
    return Response(status_code=304, headers={"ETag": etag(version)})
