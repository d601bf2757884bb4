"""Query strings read by pydantic alone.

FastAPI's own reading of a query model and two headers took a quarter of a get's time
(docs/decisions/0004-hot-path.md), so the routes on the hot path read theirs here.
"""

from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from app.errors import InvalidRequestError
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
