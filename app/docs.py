"""The OpenAPI document, and a page to read and try it, without any file from elsewhere.

They take no key, so the large ones are sent in chunks: clients that do not take them hold little.
"""

from collections.abc import AsyncIterator
from functools import cache
from importlib.resources import files
from pathlib import Path

import orjson
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import FileResponse, Response, StreamingResponse

from app.auth.dependencies import check_local_without_keys
from app.http.messages import CHUNK_BYTES

_PACKAGE = "fastapi_offline"
"""Only its files are used: Swagger UI, which FastAPI itself would load from a CDN."""

_ASSETS = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon.png": "image/png",
}

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>memoryd</title>
<link rel="icon" href="docs/favicon.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""

_START = """SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null,
});
"""

_HEADERS = {
    # Swagger UI uses inline styles and data URLs for its icons.
    "content-security-policy": "default-src 'none'; script-src 'self'; connect-src 'self'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}

router = APIRouter(include_in_schema=False, dependencies=[Depends(check_local_without_keys)])


@router.get("/openapi.json")
async def read_document(request: Request) -> Response:
    document = _document(request.app)
    headers = {"content-length": str(len(document))}
    return StreamingResponse(_chunks(document), headers=headers, media_type="application/json")


async def _chunks(document: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(document), CHUNK_BYTES):
        yield document[start : start + CHUNK_BYTES]


class _Asset(FileResponse):
    chunk_size = CHUNK_BYTES


@router.get("/docs")
async def read_page() -> Response:
    return Response(_PAGE, headers=_HEADERS, media_type="text/html")


@router.get("/docs/start.js")
async def read_start() -> Response:
    return Response(_START, headers=_HEADERS, media_type="text/javascript")


@router.get("/docs/swagger-ui-bundle.js")
@router.get("/docs/swagger-ui.css")
@router.get("/docs/favicon.png")
async def read_asset(request: Request) -> Response:
    name = request.url.path.rpartition("/")[2]
    path = Path(str(files(_PACKAGE))) / "static" / name
    return _Asset(path, headers=_HEADERS, media_type=_ASSETS[name])


@cache
def _document(app: FastAPI) -> bytes:
    return orjson.dumps(app.openapi())
