"""Query strings and JSON answers, without FastAPI's own reading and serialization.

FastAPI's own reading of a query model and two headers took a quarter of a get's time
(docs/decisions/0004-hot-path.md), so the routes on the hot path read theirs here. Values of items
pass through as text (`orjson.Fragment`), never parsed.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

import orjson
from fastapi import Request, Response
from pydantic import BaseModel, ValidationError

from app.errors import InvalidRequestError
from app.http.conditional import etag
from app.validation import invalid_request, list_errors

MAX_PARAMETERS = 32

Query = TypeVar("Query", bound=BaseModel)


def check_query_size(request: Request) -> None:
    """Raise InvalidRequestError if the URL has more parameters than any route takes."""
    if request.scope["query_string"].count(b"&") >= MAX_PARAMETERS:
        raise InvalidRequestError(
            f"The URL has more than {MAX_PARAMETERS} query parameters; leave some out."
        )


def read_query(model: type[Query], request: Request) -> Query:
    """Return the query string as a model; raises InvalidRequestError naming the parameter."""
    try:
        return model.model_validate(dict(request.query_params))
    except ValidationError as error:
        found = [{**one, "loc": ("query", *one["loc"])} for one in list_errors(error)]
        raise invalid_request(found) from error


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
