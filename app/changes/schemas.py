"""Requests and responses of the routes that list, review, and undo a job's changes."""

from datetime import datetime
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, Field

from app.auth.access import Access
from app.changes.repository import Action, ChangeState, ListedChange
from app.conversations.messages import SourceClass
from app.db.pages import Page
from app.json_values import JsonObject, JsonText
from app.schemas import Schema
from app.store.schemas import Source

MAX_PAGE = 1000


class ListJobChanges(Schema):
    """Selection of a job's changes."""

    cursor: Annotated[int, Field(ge=0, lt=2**31)] | None = Field(
        None, description="next_cursor of the previous page."
    )
    limit: Annotated[int, Field(ge=1, le=MAX_PAGE)] | None = Field(
        None, description="At most this many; absent: 100."
    )


class JobChange(BaseModel):
    """An insert, update, or delete that a job proposed, and its state."""

    number: int = Field(description="Position among the job's changes, from 1.")
    action: Action = Field(description="Effect on the item.")
    state: ChangeState = Field(
        description="proposed: waits for a review; rejected: could no longer be applied."
    )
    namespace: list[str] = Field(description="Labels, outermost first.")
    key: str = Field(description="The item's key in its namespace.")
    kind: str | None = Field(description="The memory's kind; null: it has none.")
    value: Annotated[dict[str, Any], Field(title="Value")] | None = Field(
        description="The item's next value; null for a delete."
    )
    value_before: Annotated[dict[str, Any], Field(title="ValueBefore")] | None = Field(
        description="The value that the change replaces; null if there was no item."
    )
    importance: float | None = Field(description="The memory's importance, 0 to 1.")
    valid_from: str | None = Field(description="Since when the memory holds, as given.")
    said_first: datetime | None = Field(description="When its source was first said.")
    said_last: datetime | None = Field(description="When its source was last said.")
    source_class: SourceClass | None = Field(description="The kind of its source.")
    source: Source | None = Field(description="Origin of the memory; null for a delete.")
    reason: str | None = Field(description="The model's reason, if it gave one.")
    state_reason: str | None = Field(
        description="Why the change was not applied, or not undone; null: it was."
    )
    version_before: int | None = Field(description="The item's version; null if there was none.")
    version_after: int | None = Field(description="null unless the change was applied.")


class JobChangeList(BaseModel):
    """A page of a job's changes, in order."""

    changes: list[JobChange] = Field(description="Ordered by their numbers.")
    next_cursor: int | None = Field(description="Cursor of the next page; null: this is the last.")

    @staticmethod
    def members(page: Page[ListedChange], access: Access) -> JsonObject:
        """Return a page's members; values, up to 4 MiB, stay the text that they are stored as."""
        return {
            "changes": [_members(listed, access) for listed in page.items],
            "next_cursor": page.next_cursor(lambda listed: listed.change.number),
        }


def _members(listed: ListedChange, access: Access) -> JsonObject:
    change = listed.change
    return {
        "number": change.number,
        "action": change.action,
        "state": change.state,
        "namespace": access.relative(change.namespace),
        "key": change.address.key,
        "kind": change.kind,
        "value": _fragment(change.value),
        "value_before": _fragment(listed.value_before),
        "importance": change.importance,
        "valid_from": change.valid_from and str(change.valid_from),
        "said_first": change.said_first,
        "said_last": change.said_last,
        "source_class": change.source_class,
        "source": change.source,
        "reason": change.reason,
        "state_reason": change.state_reason,
        "version_before": change.version_before,
        "version_after": change.version_after,
    }


def _fragment(text: JsonText | None) -> orjson.Fragment | None:
    return None if text is None else orjson.Fragment(text)
