"""What can go wrong with a tool that is the application's fault; a model's is a ToolError."""

from collections.abc import Iterable

from app.errors import NotFoundError


class ToolNotFoundError(NotFoundError):
    """There is no such tool."""

    code = "tool_not_found"
    title = "Tool not found"

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(
            f'There is no tool "{name}"; there are {", ".join(known)}. '
            "Send each call of your model to the tool that it names."
        )
