"""What memoryd refuses or fails, as Python errors."""

import re
from collections.abc import Mapping
from typing import Any

from langgraph.store.base import InvalidNamespaceError

_OF_A_NAMESPACE = re.compile(r"(operations\[\d+\]\.)?(namespace|namespace_prefix|prefix|suffix)\b")


class MemorydError(Exception):
    """An operation that memoryd did not carry out.

    `code` names the kind of problem, `errors` the fields that are wrong; the server's log has more
    under `request_id`.
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
    """The operation itself is wrong."""


class InvalidLabelsError(InvalidInputError, InvalidNamespaceError):
    """The operation's namespace is wrong."""


def is_problem(result: Any) -> bool:
    """Tell a problem document from what operations return."""
    return isinstance(result, dict) and {"status", "code", "detail"} <= result.keys()


def error_of(problem: Mapping[str, Any], request_id: str | None) -> MemorydError:
    """Return the error that a problem document (RFC 9457) describes."""
    errors = tuple(problem.get("errors", ()))
    kind = MemorydError
    if problem["status"] in {400, 413, 422}:
        wrong_labels = any(_OF_A_NAMESPACE.match(error["field"]) for error in errors)
        kind = InvalidLabelsError if wrong_labels else InvalidInputError
    return kind(
        problem["detail"],
        status=problem["status"],
        code=problem["code"],
        errors=errors,
        request_id=request_id,
    )
