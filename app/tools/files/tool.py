"""The tool `memory`: files that a model keeps, as Anthropic's memory tool has them."""

import json
from functools import partial
from typing import Any, Self, assert_never

from app.auth.access import Verb
from app.db.optimistic import TooManyConflictsError
from app.resources import Resources
from app.store.errors import InvalidValueError
from app.tools.arguments import either
from app.tools.base import Answer, Bound, Definition, Offer, ToolError
from app.tools.files import files, moving
from app.tools.files.commands import (
    Command,
    Create,
    Delete,
    Insert,
    Rename,
    StrReplace,
    View,
    read_command,
)
from app.tools.files.definition import NAME, definition, permitted
from app.tools.files.paths import ROOT, key_of
from app.tools.files.texts import inserted, replaced
from app.tools.files.tree import Tree


class MemoryFiles:
    """Carries out a model's commands on the files of the bound namespace."""

    name = NAME

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make it from a process's resources."""
        return cls(Tree.build(resources))

    def definition(self, offer: Offer) -> Definition:
        """Return how the tool is offered: with the commands that are permitted."""
        return definition(offer)

    async def call(self, bound: Bound, arguments: dict[str, Any]) -> Answer:
        """Carry out a command; raises ToolError, ForbiddenError and EmbeddingFailedError."""
        commands = permitted(bound.actions)
        wanted = arguments.get("command")
        if wanted not in commands:
            shown = json.dumps(wanted)[:100]
            raise ToolError(f"Error: command is {shown}; it must be {either(commands)}.")
        command = read_command(arguments)
        # Every command answers by what is stored, be it only that something is in the way.
        bound.access.locate(bound.namespace, Verb.READ)
        try:
            return Answer(await self._carry_out(bound, command))
        except InvalidValueError as error:  # of what the arguments were checked for, only its size
            raise ToolError(
                "Error: The file would be too large; nothing was written. "
                "Keep what is new in a file of its own, and split long texts."
            ) from error
        except TooManyConflictsError as error:
            raise ToolError(
                "Error: Others keep changing the same files; nothing was done. Try again."
            ) from error

    async def _carry_out(self, bound: Bound, command: Command) -> str:
        match command:
            case View(path=path):
                return await files.view(self._tree, bound, key_of(path), command.view_range)
            case Create(path=path):
                await files.create(self._tree, bound, _file(path), command.file_text)
                return f"File created successfully at: {path}"
            case StrReplace(path=path):
                edit = partial(replaced, path, old=command.old_str, new=command.new_str)
                return await files.edit(self._tree, bound, _file(path), edit)
            case Insert(path=path):
                return await files.edit(self._tree, bound, _file(path), _insertion(command))
            case Delete(path=path):
                await moving.delete(self._tree, bound, _below_root(path, "delete"))
                return f"Successfully deleted {path}"
            case Rename(old_path=old, new_path=new):
                key = _below_root(old, "rename")
                await moving.rename(self._tree, bound, key, _below_root(new, "rename"))
                return f"Successfully renamed {old} to {new}"
            case _:
                assert_never(command)


def _insertion(command: Insert) -> files.Edit:
    told = f"The file {command.path} has been edited."
    return lambda text: (inserted(text, command.insert_line, command.insert_text), told)


def _file(path: str) -> str:
    """Return the key of a path that names a file; raises ToolError."""
    key = key_of(path)
    if not key or path.endswith("/"):
        raise ToolError(f"Error: {path} is a directory; name a file.")
    return key


def _below_root(path: str, verb: str) -> str:
    """Return the key of a file or directory that can be changed; raises ToolError."""
    key = key_of(path)
    if not key:
        raise ToolError(f"Cannot {verb} the {ROOT} directory itself")
    return key
