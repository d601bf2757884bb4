"""Errors of the prompts feature."""

from collections.abc import Mapping

from app.errors import ConflictError, NotFoundError


class PromptNotFoundError(NotFoundError):
    """There is no such prompt under the key's root."""

    code = "prompt_not_found"
    title = "Prompt not found"

    def __init__(self, name: str) -> None:
        super().__init__(
            f'There is no prompt "{name}". GET /v1/prompts lists them, '
            "PUT /v1/prompts/{name} creates one."
        )


class PromptVersionNotFoundError(NotFoundError):
    """The prompt never had that version."""

    code = "prompt_version_not_found"
    title = "Prompt version not found"

    def __init__(self, name: str, version: int, newest: int) -> None:
        has = "only version 1" if newest == 1 else f"versions 1 to {newest}"
        super().__init__(f'The prompt "{name}" has no version {version}; it has {has}.')


class PromptLabelNotFoundError(NotFoundError):
    """No version of the prompt has that label."""

    code = "prompt_label_not_found"
    title = "Prompt label not found"

    def __init__(self, name: str, label: str, known: Mapping[str, int]) -> None:
        labels = ", ".join(f"{known_label} (version {known[known_label]})" for known_label in known)
        super().__init__(
            f'The prompt "{name}" has no label "{label}"; it has {labels or "none"}. '
            "Name another label or a version; POST /v1/prompts/{name}/promote sets labels."
        )


class NothingToRollBackError(ConflictError):
    """The label has never pointed to another version."""

    code = "nothing_to_roll_back"
    title = "Nothing to roll back"

    def __init__(self, name: str, label: str, version: int) -> None:
        super().__init__(
            f'The label "{label}" of the prompt "{name}" points to version {version}, and has no '
            "previous version. Promote the version that you want."
        )


class TooManyLabelsError(ConflictError):
    """The prompt has the maximum number of labels."""

    code = "too_many_labels"
    title = "Too many labels"

    def __init__(self, name: str, maximum: int) -> None:
        super().__init__(
            f'The prompt "{name}" would have more than {maximum} labels of your own. '
            "Delete one with DELETE /v1/prompts/{name}/labels/{label}."
        )
