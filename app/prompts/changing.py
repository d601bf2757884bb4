"""What is read and changed of a prompt in a transaction; whoever changes has locked it."""

from asyncpg import Record

from app.db.database import Connection
from app.prompts import repository
from app.prompts.errors import (
    PromptLabelNotFoundError,
    PromptNotFoundError,
    PromptVersionNotFoundError,
    TooManyLabelsError,
)
from app.prompts.repository import Change, Ref, Version
from app.prompts.schemas import CANDIDATE, MAX_LABELS, PRODUCTION, PutPrompt

ALWAYS_FREE = {PRODUCTION, CANDIDATE}
"""Labels beside those that are counted: a job must be able to store what it was paid for."""


async def find(
    connection: Connection, ref: Ref, *, label: str | None = None, version: int | None = None
) -> Record:
    """Return a prompt with the version asked for, or its newest; raises the errors of `read`."""
    row = await repository.find(connection, ref, label=label, version=version)
    if row is None:
        raise PromptNotFoundError(ref.name)
    if row["version"] is not None:
        return row
    if label is not None:
        known = await repository.find_labels(connection, ref)
        raise PromptLabelNotFoundError(ref.name, label, known)
    raise PromptVersionNotFoundError(ref.name, version or 0, row["newest"])


async def write(
    connection: Connection, ref: Ref, row: Record | None, body: PutPrompt, change: Change
) -> None:
    """Bring a prompt, or one that is not there yet, into the state that a request asks for."""
    if row is not None and _is_as_asked(row, body):
        return
    is_new_text = row is None or row["text"] != body.text
    number = (0 if row is None else row["newest"]) + is_new_text
    instructions = (body.update_instructions, body.when_to_update)
    await repository.write(connection, ref, number, instructions, change)
    if is_new_text:
        version = Version(number, body.text, analysis=body.analysis)
        await repository.add_version(connection, ref, version, change)
    labels = [PRODUCTION] if row is None and body.labels is None else body.labels or []
    for label in labels:
        await point(connection, ref, label, number, change)


def _is_as_asked(row: Record, body: PutPrompt) -> bool:
    names = ("text", "update_instructions", "when_to_update")
    is_same = all(row[name] == getattr(body, name) for name in names)
    return is_same and set(body.labels or ()) <= set(row["labels"])


async def point(connection: Connection, ref: Ref, label: str, number: int, change: Change) -> bool:
    """Let a label point to a version; False when it does already. Raises TooManyLabelsError."""
    moved = await repository.point(connection, ref, label, number, change)
    if moved and label not in ALWAYS_FREE:
        labels = await repository.find_labels(connection, ref)
        if len(labels.keys() - ALWAYS_FREE) > MAX_LABELS:
            raise TooManyLabelsError(ref.name, MAX_LABELS)
    return moved
