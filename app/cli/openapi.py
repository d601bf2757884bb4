"""`python -m app.cli.openapi` prints the OpenAPI document as YAML; it needs no database."""

import json
import sys
from typing import Any

import yaml

from app.config import Settings
from app.main import create_app

DEFAULT_SERVER = {
    "url": "http://127.0.0.1:8080",
    "description": "A server on this machine, at the address that it has by default.",
}
"""For generated clients; the document sent by a server names that server instead."""


def document() -> dict[str, Any]:
    """Return the OpenAPI document of an application with default settings."""
    return create_app(Settings()).openapi() | {"servers": [DEFAULT_SERVER]}


def as_yaml(openapi: dict[str, Any]) -> str:
    """Return a document as YAML without anchors, which not every reader of OpenAPI follows."""
    unshared = json.loads(json.dumps(openapi))
    text: str = yaml.safe_dump(unshared, sort_keys=False, allow_unicode=True, width=100)
    return text


if __name__ == "__main__":
    sys.stdout.write(as_yaml(document()))
