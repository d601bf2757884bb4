"""What the memory tool can be told to do."""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from app.tools.arguments import mistakes
from app.tools.base import ToolError


class View(BaseModel):
    """Show a directory, or a file or some of its lines."""

    command: Literal["view"]
    path: str
    view_range: Annotated[list[int], Field(min_length=2, max_length=2)] | None = None


class Create(BaseModel):
    """Write a new file."""

    command: Literal["create"]
    path: str
    file_text: str


class StrReplace(BaseModel):
    """Replace text that a file holds once."""

    command: Literal["str_replace"]
    path: str
    old_str: str
    new_str: str


class Insert(BaseModel):
    """Add lines to a file after a line; 0 is the beginning."""

    command: Literal["insert"]
    path: str
    insert_line: int
    insert_text: str


class Delete(BaseModel):
    """Delete a file, or a directory with all that is in it."""

    command: Literal["delete"]
    path: str


class Rename(BaseModel):
    """Move a file or a directory."""

    command: Literal["rename"]
    old_path: str
    new_path: str


Command: TypeAlias = View | Create | StrReplace | Insert | Delete | Rename

_COMMAND: TypeAdapter[Command] = TypeAdapter(Annotated[Command, Field(discriminator="command")])


def read_command(arguments: dict[str, Any]) -> Command:
    """Return what a model asks for; raises ToolError. Arguments of other commands are ignored."""
    try:
        return _COMMAND.validate_python(arguments)
    except ValidationError as error:
        raise ToolError(f"Error: {mistakes(error, tagged=True)}") from error
