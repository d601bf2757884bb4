"""Errors of conversations and of namespace templates."""

import json
from collections.abc import Sequence

from app.errors import InvalidRequestError


class MissingVariableError(InvalidRequestError):
    """A variable of a manager's namespace was not given a value."""

    code = "missing_variable"
    title = "Missing variable"

    def __init__(self, variable: str, template: Sequence[str], index: int, where: str) -> None:
        super().__init__(
            f"The namespace {json.dumps(template, ensure_ascii=False)} needs the variable "
            f'"{variable}" in label {index}; send it in {where}.',
            field=f"{where}.{variable}",
        )


class UnknownVariableError(InvalidRequestError):
    """A variable was given that the manager's namespace does not have."""

    code = "unknown_variable"
    title = "Unknown variable"

    def __init__(self, variable: str, known: Sequence[str]) -> None:
        has = f"has only {', '.join(known)}" if known else "has no variables"
        super().__init__(
            f'There is no variable "{variable}": the namespace {has}. '
            "Check its spelling or leave it out.",
            field=f"variables.{variable}",
        )


class InvalidMessageError(InvalidRequestError):
    """A message of a conversation cannot be read."""

    code = "invalid_message"
    title = "Invalid message"
