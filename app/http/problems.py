"""Errors as RFC 9457 problem documents, and their place in the OpenAPI document."""

import json
import re
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from app.errors import AppError, BodyTooLargeError, invalid_request

MEDIA_TYPE = "application/problem+json"

_TYPE_PREFIX = "urn:memoryd:problem:"

_OF_THE_PLATFORM = re.compile("/v1/(assistants|crons|runs|threads)(/|$)")

_SERVED_TO_ITS_SDKS = (
    " To LangGraph's SDKs memoryd serves the store and runs.create; GET /v1/jobs/{run_id} returns "
    "a run and its result."
)


class FieldProblem(BaseModel):
    """A mistake in one field of a request."""

    field: str = Field(description="Where in the request.", examples=["namespace[0]"])
    detail: str = Field(description="The mistake, and how to correct it.")


class Problem(BaseModel):
    """Why a request was not carried out (RFC 9457)."""

    type: str = Field(
        description="The kind of problem, as a URN.",
        examples=["urn:memoryd:problem:invalid_request"],
    )
    title: str = Field(description="The kind of problem, in words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="The cause of this problem, and how to correct it.")
    code: str = Field(
        description="The kind of problem, for programs.", examples=["invalid_request"]
    )
    errors: list[FieldProblem] = Field(
        default_factory=list,
        description="Each field that is wrong; absent when no field is to blame.",
    )


def problem_responses(*errors: type[AppError]) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI `responses` of a route that may answer with these errors."""
    titles: dict[int, list[str]] = {}
    for error in errors:
        titles.setdefault(error.status, []).append(error.title)
    return {
        status: problem_response(" · ".join(sorted(set(of_status))))
        for status, of_status in titles.items()
    }


def problem_response(description: str) -> dict[str, Any]:
    """Return the OpenAPI description of a response with a problem document."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": description, "content": {MEDIA_TYPE: {"schema": schema}}}


def as_problem(error: AppError) -> dict[str, Any]:
    """Return an error as the members of its problem document."""
    return _members(error.status, error.code, error.title, error.detail) | error.members


def install(app: FastAPI) -> None:
    """Make every error of the app answer with a problem document."""
    app.add_exception_handler(AppError, _on_app_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_exception)


async def _on_app_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, AppError)  # noqa: S101  # registered for this class only
    return _response(as_problem(error), error.headers)


async def _on_invalid_request(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    return _response(as_problem(invalid_request(error.errors())))


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    code, title, detail = _HTTP_PROBLEMS.get(
        error.status_code, ("http_error", "Request failed", error.detail)
    )
    if error.status_code in {404, 405} and _OF_THE_PLATFORM.match(request.scope["path"]):
        detail += _SERVED_TO_ITS_SDKS
    headers = {"Allow": _allowed_methods(request)} if error.status_code == 405 else error.headers
    return _response(_members(error.status_code, code, title, detail), headers)


def _allowed_methods(request: Request) -> str:
    """Return every method of a path; Starlette names those of the first route it meets.

    An id may hold slashes, which only the path as it was sent tells apart; and if a path fits
    several patterns, the first one counts.
    """
    sent = request.scope["raw_path"].decode("latin-1")
    routes = list(iter_route_contexts(request.app.routes))
    for path in (sent, request.scope["path"]):
        patterns = [route.path for route in routes if route.path_regex.match(path)]
        of_first = (route.methods or () for route in routes if route.path in patterns[:1])
        if methods := {method for methods in of_first for method in methods}:
            return ", ".join(sorted(methods))
    return ""


def internal_error() -> Response:
    """Return the answer to a request that met a mistake of ours."""
    detail = "The server failed; its log has the cause under this response's x-request-id."
    return _response(_members(500, "internal_error", "Internal error", detail))


def shutting_down() -> Response:
    """Return the answer to a request that the server's shutdown interrupts."""
    detail = (
        "The server shuts down and could not wait for the end of this request, which may have "
        "taken effect. Send it again to another server or later, with the same Idempotency-Key."
    )
    headers = {"Retry-After": "5"}
    return _response(_members(503, "shutting_down", "Shutting down", detail), headers)


_HTTP_PROBLEMS = {
    400: (
        "invalid_json",
        "Invalid JSON",
        "The body could not be read as JSON. Send a JSON object, whole, with at most 64 levels of "
        "objects and arrays.",
    ),
    404: ("no_such_route", "No such route", "There is nothing here. GET /docs lists the routes."),
    405: (
        "method_not_allowed",
        "Method not allowed",
        "This route does not take that method; the Allow header lists those it takes.",
    ),
}

BODY_PROBLEMS = {
    "400": problem_response(_HTTP_PROBLEMS[400][1]),
    "413": problem_response(BodyTooLargeError.title),
}
"""The OpenAPI `responses` that every route with a body shares."""


def _members(status: int, code: str, title: str, detail: str) -> dict[str, Any]:
    return {
        "type": _TYPE_PREFIX + code,
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
    }


def _response(members: dict[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    # Pure ASCII: a detail may quote characters that UTF-8 cannot carry.
    body = json.dumps(members, ensure_ascii=True)
    return Response(body, members["status"], headers, media_type=MEDIA_TYPE)
