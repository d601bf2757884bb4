"""Problem documents of memoryd as Python errors."""

import re
from collections.abc import Mapping
from typing import Any

from langgraph.store.base import InvalidNamespaceError

_NAMESPACE_FIELD = re.compile(r"(operations\[\d+\]\.)?(namespace|namespace_prefix|prefix|suffix)\b")


class MemorydError(Exception):
    """An error response of memoryd.

    `code` names the kind of problem, `errors` lists the invalid fields, and `request_id` finds the
    request in the server's log.
    """

    def __init__(
        self,
        detail: str,
        *,
        status: int,
        code: str,
        errors: tuple[Mapping[str, str], ...] = (),
        request_id: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.status = status
        self.code = code
        self.errors = errors
        self.request_id = request_id


class InvalidInputError(MemorydError, ValueError):
    """The operation is invalid."""


class InvalidLabelsError(InvalidInputError, InvalidNamespaceError):
    """The operation's namespace is invalid."""


def is_problem(result: Any) -> bool:
    """Whether a result is a problem document."""
    return isinstance(result, dict) and {"status", "code", "detail"} <= result.keys()


def to_error(problem: Mapping[str, Any], request_id: str | None) -> MemorydError:
    """Return a problem document (RFC 9457) as an error."""
    errors = tuple(problem.get("errors", ()))
    kind = MemorydError
    if problem["status"] in {400, 413, 422}:
        is_about_namespace = any(_NAMESPACE_FIELD.match(error["field"]) for error in errors)
        kind = InvalidLabelsError if is_about_namespace else InvalidInputError
    return kind(
        problem["detail"],
        status=problem["status"],
        code=problem["code"],
        errors=errors,
        request_id=request_id,
    )
