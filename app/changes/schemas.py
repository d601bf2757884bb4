"""Bodies of the routes that review and undo what jobs of managers came to."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, Field

from app.changes.repository import Action, ChangeState
from app.schemas import Schema
from app.store.schemas import Source

MAX_PAGE = 1000


class ListJobChanges(Schema):
    """Which changes of a job to list."""

    cursor: Annotated[int, Field(ge=0, lt=2**31)] | None = Field(
        None, description="next_cursor of the page before."
    )
    limit: Annotated[int, Field(ge=1, le=MAX_PAGE)] | None = Field(
        None, description="At most this many; absent: 100."
    )


class JobChange(BaseModel):
    """An insert, update or delete that a job proposed, and what came of it."""

    number: int = Field(description="Place among the changes of the job, from 1.")
    action: Action = Field(description="What is done to the item.")
    state: ChangeState = Field(
        description="proposed: waits for a review; rejected: could not be applied any more."
    )
    namespace: list[str] = Field(description="Labels from the outermost in.")
    key: str = Field(description="Name of the item in its namespace.")
    kind: str | None = Field(description="Of the memory; null: written by others, of no kind.")
    value: Annotated[dict[str, Any], Field(title="Value")] | None = Field(
        description="The item's next value; null for a delete."
    )
    value_before: Annotated[dict[str, Any], Field(title="ValueBefore")] | None = Field(
        description="null where there was no item."
    )
    importance: float | None = Field(description="How much the memory matters, 0 to 1.")
    valid_from: datetime | None = Field(description="Since when the memory holds.")
    source: Source | None = Field(description="Where the memory comes from; null for a delete.")
    reason: str | None = Field(description="Why the model wanted it, where it said so.")
    outcome: str | None = Field(description="Why it was not applied, or not undone.")
    version_before: int | None = Field(description="Of the item; null where there was none.")
    version_after: int | None = Field(description="null where it was not applied.")


class JobChangeList(BaseModel):
    """A page of a job's changes, in order."""

    changes: list[JobChange] = Field(description="In the order of their numbers.")
    next_cursor: int | None = Field(description="Send it as cursor for the next page; null: last.")
