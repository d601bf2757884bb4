"""Namespace templates: labels with `{variables}` that a request replaces."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, WithJsonSchema

from app.errors import InvalidRequestError
from app.namespaces import InvalidNamespaceError, check_labels

MAX_VARIABLES = 50
MAX_VARIABLE_CHARACTERS = 1_024
MAX_TEMPLATE_CHARACTERS = 1_024

TemplateLabel = Annotated[str, Field(max_length=MAX_TEMPLATE_CHARACTERS)]
VariableName = Annotated[str, Field(max_length=64), WithJsonSchema({"type": "string"})]
"""The OpenAPI document leaves the length out, because generators do not know `propertyNames`."""
Variables = Annotated[
    dict[VariableName, Annotated[str, Field(max_length=MAX_VARIABLE_CHARACTERS)]],
    Field(max_length=MAX_VARIABLES, title="Variables"),
]
"""Values of a template's variables."""

_PART = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]{0,63})\}|[^{}]+|.", re.DOTALL)


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


@dataclass(frozen=True, slots=True)
class _Label:
    """The parts of a label: `texts[0] variables[0] texts[1] … variables[-1] texts[-1]`."""

    texts: tuple[str, ...]
    variables: tuple[str, ...]


def check_template(template: list[str]) -> list[str]:
    """Return the template; ValueError if no values can make it a namespace."""
    labels = [_parse(label, index) for index, label in enumerate(template)]
    check_labels(["".join(label.texts) + "x" * bool(label.variables) for label in labels])
    return template


def fill_template(
    template: Sequence[str], variables: Mapping[str, str], *, where: str = "variables"
) -> list[str]:
    """Return the namespace that a template leads to; `where` names the field with the variables.

    Different values never lead to one namespace. Raises MissingVariableError,
    UnknownVariableError and InvalidRequestError, naming the variable.
    """
    labels = [_parse(label, index) for index, label in enumerate(template)]
    known = list(dict.fromkeys(name for label in labels for name in label.variables))
    for name in variables:
        if name not in known:
            raise UnknownVariableError(name, known)
    for index, label in enumerate(labels):
        for name in label.variables:
            if name not in variables:
                raise MissingVariableError(name, template, index, where)
    return [_fill(label, variables, index) for index, label in enumerate(labels)]


def can_extend(template: Sequence[str], prefix: Sequence[str]) -> bool:
    """Return whether some values lead to a namespace at or below a prefix."""
    labels = [_parse(label, index) for index, label in enumerate(template)]
    return len(prefix) <= len(labels) and all(
        label.variables or label.texts[0] == wanted
        for label, wanted in zip(labels, prefix, strict=False)
    )


def _parse(label: str, index: int) -> _Label:
    """Split a label into its parts; ValueError if a brace is neither doubled nor around a name."""
    texts = [""]
    variables: list[str] = []
    for part in _PART.finditer(label):
        if part[1]:
            if variables and not texts[-1]:
                raise ValueError(
                    f"label {index} has two variables side by side; put something between them, "
                    "or give each a label of its own"
                )
            variables.append(part[1])
            texts.append("")
        elif part[0] in ("{", "}"):
            raise ValueError(
                f'label {index} has a single "{part[0]}"; write {{name}} for a variable, '
                f'"{part[0] * 2}" for the brace itself'
            )
        else:
            texts[-1] += part[0][0] if part[0] in ("{{", "}}") else part[0]
    return _Label(tuple(texts), tuple(variables))


def _fill(label: _Label, variables: Mapping[str, str], index: int) -> str:
    filled = label.texts[0]
    for position, name in enumerate(label.variables):
        value, after = variables[name], label.texts[position + 1]
        is_last = position == len(label.variables) - 1
        if not value.strip():
            raise _unusable(name, "is empty; send a value")
        if not is_last and (value + after).find(after) < len(value):
            # {a}-{b} of "x-y", "z" and of "x", "y-z" would be one namespace.
            raise _unusable(
                name,
                f'holds "{after}", which separates it from the next variable in label {index} of '
                "the namespace; give each variable a label of its own",
            )
        filled += value + after
    try:
        check_labels([filled])
    except InvalidNamespaceError as error:
        problem = str(error).replace("label 0", f"label {index} of the namespace")
        raise _unusable(label.variables[-1], f"cannot be used: {problem}") from error
    return filled


def _unusable(name: str, problem: str) -> InvalidRequestError:
    return InvalidRequestError(f'The variable "{name}" {problem}.', field=f"variables.{name}")
