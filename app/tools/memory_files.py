"""The tool `memory`: files that a model keeps, with the commands of Anthropic's memory tool."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, ClassVar, Literal, Self, TypeAlias, assert_never

from pydantic import BaseModel, BeforeValidator, Field, TypeAdapter, ValidationError

from app.auth.access import Verb
from app.db.database import TooManyConflictsError
from app.json_values import JsonObject
from app.resources import Resources
from app.store.types import InvalidValueError
from app.tools.file_text import ROOT, insert_lines, key_of, replace_text
from app.tools.file_tree import Edit, FileTree
from app.tools.tool import (
    Action,
    ToolContext,
    ToolDefinition,
    ToolError,
    ToolOptions,
    ToolResult,
    Toolset,
    any_of,
    describe_mistakes,
    tool_text,
    validate_arguments,
)

NAME = "memory"

ANTHROPIC = {"type": "memory_20250818", "name": NAME}
"""Anthropic's API describes the tool to its models by itself."""

_ACTIONS_OF: Mapping[str, Sequence[Action]] = {
    "view": (),
    "create": ("create",),
    "str_replace": ("update",),
    "insert": ("update",),
    "delete": ("delete",),
    "rename": ("update", "delete"),
}
"""The actions that must be permitted for each command."""

_PROPERTIES: Mapping[str, tuple[str, JsonObject]] = {
    "path": (
        "view create str_replace insert delete",
        {"type": "string", "description": tool_text("memory_path")},
    ),
    "view_range": (
        "view",
        {
            "type": "array",
            "items": {"type": "integer"},
            "minItems": 2,
            "maxItems": 2,
            "description": tool_text("memory_view_range"),
        },
    ),
    "file_text": ("create", {"type": "string", "description": tool_text("memory_file_text")}),
    "old_str": (
        "str_replace",
        {"type": "string", "description": tool_text("memory_old_str")},
    ),
    "new_str": ("str_replace", {"type": "string", "description": tool_text("memory_new_str")}),
    "insert_line": (
        "insert",
        {"type": "integer", "minimum": 0, "description": tool_text("memory_insert_line")},
    ),
    "insert_text": ("insert", {"type": "string", "description": tool_text("memory_insert_text")}),
    "old_path": ("rename", {"type": "string", "description": tool_text("memory_old_path")}),
    "new_path": ("rename", {"type": "string", "description": tool_text("memory_new_path")}),
}
"""Each parameter, with the commands that take it."""


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
    """Replace text that occurs once in a file."""

    command: Literal["str_replace"]
    path: str
    old_str: str
    new_str: Annotated[str, BeforeValidator(lambda text: "" if text is None else text)] = ""


class Insert(BaseModel):
    """Add lines to a file after a line; 0 is the beginning."""

    command: Literal["insert"]
    path: str
    insert_line: int
    insert_text: str


class Delete(BaseModel):
    """Delete a file, or a directory with everything in it."""

    command: Literal["delete"]
    path: str


class Rename(BaseModel):
    """Move a file or a directory."""

    command: Literal["rename"]
    old_path: str
    new_path: str


Command: TypeAlias = View | Create | StrReplace | Insert | Delete | Rename

_COMMAND: TypeAdapter[Command] = TypeAdapter(Annotated[Command, Field(discriminator="command")])


class MemoryFiles:
    """Executes a model's commands on the files of the namespace that the application chose."""

    name: ClassVar[str] = NAME
    toolset: ClassVar[Toolset] = "agents"

    def __init__(self, tree: FileTree) -> None:
        self._tree = tree

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make the tool from a process's resources."""
        return cls(FileTree.build(resources, NAME))

    @classmethod
    def definition(cls, options: ToolOptions) -> ToolDefinition:
        """Return the definition with the commands that the options permit."""
        commands = _permitted_commands(options.actions)
        lines = [
            tool_text(NAME),
            "Commands:",
            *(f"- {tool_text(f'memory_{command}')}" for command in commands),
        ]
        properties: JsonObject = {"command": {"type": "string", "enum": commands}}
        for name, (belongs_to, schema) in _PROPERTIES.items():
            if set(belongs_to.split()) & set(commands):
                properties[name] = schema
        parameters = {
            "type": "object",
            "properties": properties,
            "required": ["command"],
            "additionalProperties": False,
        }
        return ToolDefinition(
            name=NAME,
            description="\n".join(lines),
            input_schema=parameters,
            anthropic=ANTHROPIC,
        )

    async def call(self, context: ToolContext, arguments: JsonObject) -> ToolResult:
        """Execute a command; raises ToolError, ForbiddenError, and EmbeddingFailedError."""
        commands = _permitted_commands(context.actions)
        if (sent := arguments.get("command")) not in commands:
            shown = json.dumps(sent)[:100]
            raise ToolError(f"Error: command is {shown}; it must be {any_of(commands)}.")
        command = _read_command(arguments)
        # Every command's result reveals something stored, at least that a path is occupied.
        context.access.authorize(context.namespace, Verb.READ)
        try:
            return ToolResult(await self._execute(context, command))
        except InvalidValueError as error:  # the arguments were checked for all but the size
            raise ToolError(
                "Error: The file would be too large; nothing was written. "
                "Keep what is new in a file of its own, and split long texts."
            ) from error
        except TooManyConflictsError as error:
            raise ToolError(
                "Error: Others keep changing the same files; nothing was done. Try again."
            ) from error

    async def _execute(self, context: ToolContext, command: Command) -> str:
        match command:
            case View(path=path):
                return await self._tree.view(context, key_of(path), command.view_range)
            case Create(path=path):
                await self._tree.create(context, _file_key(path), command.file_text)
                return f"File created successfully at: {path}"
            case StrReplace(path=path):
                edit = partial(replace_text, path, old=command.old_str, new=command.new_str)
                return await self._tree.edit(context, _file_key(path), edit)
            case Insert(path=path):
                return await self._tree.edit(context, _file_key(path), _insertion(command))
            case Delete(path=path):
                await self._tree.delete(context, _changeable_key(path, "delete"))
                return f"Successfully deleted {path}"
            case Rename(old_path=old, new_path=new):
                key = _changeable_key(old, "rename")
                await self._tree.rename(context, key, _changeable_key(new, "rename"))
                return f"Successfully renamed {old} to {new}"
            case _:
                assert_never(command)


def _permitted_commands(actions: Sequence[Action]) -> list[str]:
    """Return the commands that need no other actions."""
    return [command for command, needed in _ACTIONS_OF.items() if set(needed) <= set(actions)]


def _read_command(arguments: JsonObject) -> Command:
    """Return a model's command; raises ToolError. Arguments of other commands are ignored."""
    try:
        return validate_arguments(_COMMAND.validate_python, arguments)
    except ValidationError as error:
        raise ToolError(f"Error: {describe_mistakes(error, is_tagged=True)}") from error


def _insertion(command: Insert) -> Edit:
    result = f"The file {command.path} has been edited."
    return lambda text: (insert_lines(text, command.insert_line, command.insert_text), result)


def _file_key(path: str) -> str:
    """Return the key of a path that names a file; raises ToolError."""
    key = key_of(path)
    if not key or path.endswith("/"):
        raise ToolError(f"Error: {path} is a directory; name a file.")
    return key


def _changeable_key(path: str, verb: str) -> str:
    """Return the key of a file or directory that can be changed; raises ToolError."""
    key = key_of(path)
    if not key:
        raise ToolError(f"Cannot {verb} the {ROOT} directory itself")
    return key
