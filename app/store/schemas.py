"""Bodies of the store's routes; the first five are LangGraph's wire contract, extended."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Annotated, Any, Self

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from app.auth.access import Access, Verb
from app.conversations.messages import SourceClass
from app.db.pages import Page
from app.http.headers import UNCONDITIONAL, Precondition
from app.json_values import JsonObject, check_storable_text, count_storable
from app.namespaces import parse_labels
from app.schemas import (
    CLEAN,
    ITEM,
    Clean,
    Flag,
    ItemLabels,
    Labels,
    Moment,
    Number,
    Real,
    Schema,
    WrittenDate,
    WrittenNamespace,
)
from app.store import types
from app.store.namespace_repository import ListedNamespaces, NamespaceQuery
from app.store.types import (
    METADATA_NAMES,
    NO_METADATA,
    SHOWN_METADATA,
    Address,
    Delete,
    ItemMetadata,
    Patch,
    Put,
    Ttl,
    VersionAction,
    source_text,
)

MAX_KEY_CHARACTERS = 512
MAX_TTL_MINUTES = 52_560_000.0
"""A hundred years."""

MAX_SOURCE_VALUES = 1_000
MAX_QUESTIONS, MAX_QUESTION_CHARACTERS = 10, 300
MAX_PATHS = 32
MAX_PATH_CHARACTERS = 512

MAX_INTEGER = 2**53 - 1
"""The largest integer that every JSON reader keeps exactly."""

Key = Annotated[
    str,
    Field(
        max_length=MAX_KEY_CHARACTERS,
        json_schema_extra=CLEAN,
        description="Name of the item in its namespace.",
        examples=["favourite-food"],
    ),
    AfterValidator(check_storable_text),
]
Minutes = Annotated[
    Real,
    Field(gt=0, le=MAX_TTL_MINUTES, description="Minutes; fractions count."),
]
Seconds = Annotated[Real, Field(gt=0, le=MAX_TTL_MINUTES * 60)]
Value = Annotated[
    JsonObject, Field(description="Any JSON object.", examples=[{"text": "Likes ramen"}])
]
DateText = Annotated[str, Field(examples=["2026", "2026-05", "2026-05-03T10:00:00+00:00"])]
# A title names the class that generators make of an object.
ItemValue = Annotated[JsonObject, Field(title="Value", description="Any JSON object.")]


Question = Annotated[Clean, Field(min_length=1, max_length=MAX_QUESTION_CHARACTERS)]


def _none_for_false(index: object) -> object:
    if index is True:
        raise ValueError("is true; send false, a list of paths, or leave it out")
    return [] if index is False else index


_Path = Annotated[Clean, Field(max_length=MAX_PATH_CHARACTERS)]
# No type in the OpenAPI document: few languages can express "false or a list".
Paths = Annotated[
    list[_Path],
    Field(max_length=MAX_PATHS),
    BeforeValidator(_none_for_false, json_schema_input_type=Any),
]


class Source(BaseModel):
    """Where a memory came from; further members are kept as they are."""

    model_config = ConfigDict(extra="allow")

    @model_validator(mode="before")
    @classmethod
    def _is_small(cls, source: Any) -> Any:
        # None: too deep or not storable, which a later check reports with its place.
        if (count_storable(source) or 0) > MAX_SOURCE_VALUES:
            raise ValueError(f"has more than {MAX_SOURCE_VALUES:,} JSON values; send fewer")
        return source

    thread_id: Annotated[Clean, Field(max_length=512)] | None = Field(
        None, description="The conversation."
    )
    position: Annotated[int, Field(ge=-MAX_INTEGER, le=MAX_INTEGER), Number] | None = Field(
        None, description="The turn's place in the conversation."
    )


class ItemAddress(Schema):
    """The item a request is about."""

    namespace: Labels
    key: Key

    def address(self, access: Access, verb: Verb) -> Address:
        """Return the item's address; raises ForbiddenError."""
        return Address(access.authorize(self.namespace, verb), self.key)


class ItemDetails(Schema):
    """Optional metadata of an item."""

    importance: Annotated[Real, Field(ge=0, le=1)] | None = Field(
        None, description="How much the memory matters, 0 to 1."
    )
    pinned: Flag | None = Field(
        None, description="true: a search with a query returns it before all others."
    )
    valid_from: WrittenDate | None = Field(
        None, description="When the memory became true: a year, month, day, or time."
    )
    valid_to: WrittenDate | None = Field(
        None,
        description="When the memory ceased to be true: a time, or the end of a day, month, "
        "or year.",
    )
    said_first: Moment | None = Field(None, description="When its source was first said.")
    said_last: Moment | None = Field(None, description="When its source was last said.")
    source_class: SourceClass | None = Field(None, description="The kind of its source.")
    source: Source | None = Field(None, description="Where the memory came from.")
    questions: Annotated[list[Question], Field(max_length=MAX_QUESTIONS)] | None = Field(
        None,
        description="Questions that the memory answers. A search that is like one of them finds "
        "the memory; they are never returned.",
        examples=[["Where does Ana live?"]],
    )

    @model_validator(mode="after")
    def _times_run_forward(self) -> Self:
        if self.valid_from and self.valid_to and self.valid_from.is_after(self.valid_to):
            raise ValueError("valid_from is after valid_to; swap them")
        if self.said_first and self.said_last and self.said_first > self.said_last:
            raise ValueError("said_first is after said_last; swap them")
        return self

    def change_metadata(self, metadata: ItemMetadata) -> ItemMetadata:
        """Return an item's metadata with the members that the request has; InvalidValueError."""
        given = {
            name: getattr(self, name) for name in METADATA_NAMES if name in self.model_fields_set
        }
        if "pinned" in given:
            given["pinned"] = bool(self.pinned)
        if "questions" in given:
            given["questions"] = tuple(self.questions or ())
        if self.source is not None:
            given["source"] = source_text(self.source.model_dump(exclude_unset=True))
        return replace(metadata, **given) if given else metadata


class PutItem(ItemDetails):
    """An item's whole next state."""

    body_limit = ITEM

    namespace: ItemLabels
    key: Key
    value: Value
    index: Paths | None = Field(
        None,
        description="A list of paths to embed; an empty one or false embeds nothing; absent or "
        "null: the server's default.",
        examples=[["text"], False],
    )
    ttl: Minutes | None = Field(
        None,
        description="Lifetime in minutes; null: unlimited; absent: the server's default.",
    )
    ttl_seconds: Seconds | None = Field(None, description="Lifetime in seconds, instead of ttl.")
    require_embedding: Flag | None = Field(
        None,
        description="true: fail if the text cannot be embedded now; absent: store the item, "
        "which is found by its words until it is embedded.",
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.ttl is not None and self.ttl_seconds is not None:
            raise ValueError("ttl and ttl_seconds are both given; send one of them")
        return self

    def command(self, access: Access, precondition: Precondition = UNCONDITIONAL) -> Put:
        """Return the command; raises ForbiddenError and InvalidValueError."""
        return Put(
            address=Address(access.authorize(self.namespace, Verb.WRITE), self.key),
            value=self.value,
            metadata=self.change_metadata(NO_METADATA),
            index_paths=self.index,
            ttl=self._lifetime(),
            precondition=precondition,
            requires_embedding=bool(self.require_embedding),
        )

    def _lifetime(self) -> timedelta | Ttl:
        if self.ttl_seconds is not None:
            return timedelta(seconds=self.ttl_seconds)
        if self.ttl is not None:
            return timedelta(minutes=self.ttl)
        return Ttl.NONE if {"ttl", "ttl_seconds"} & self.model_fields_set else Ttl.DEFAULT


class PatchItem(ItemDetails):
    """A JSON merge patch (RFC 7386) of an item's value; details that are absent stay."""

    body_limit = ITEM

    namespace: ItemLabels
    key: Key
    value: Value = Field(
        default_factory=dict, description="Members to change; null removes a member."
    )

    def command(self, access: Access, precondition: Precondition) -> Patch:
        """Return the command; raises ForbiddenError."""
        address = Address(access.authorize(self.namespace, Verb.WRITE), self.key)
        return Patch(address, self.value, self.change_metadata, precondition)


class DeleteItem(ItemAddress):
    """The item to delete."""

    def command(self, access: Access, precondition: Precondition = UNCONDITIONAL) -> Delete:
        """Return the command; raises ForbiddenError."""
        return Delete(self.address(access, Verb.DELETE), precondition)


class RestoreItem(ItemAddress):
    """The earlier version to make present again."""

    version: Annotated[int, Field(ge=1, le=MAX_INTEGER), Number] = Field(
        description="A version that GET /v1/store/items/versions lists."
    )


class ListNamespaces(Schema):
    """Which namespaces to list."""

    prefix: Labels | None = Field(None, description="`*` stands for any one label.")
    suffix: Labels | None = Field(None, description="`*` stands for any one label.")
    max_depth: Annotated[int, Field(ge=1, le=1000), Number] | None = Field(
        None, description="Cut longer namespaces to this many labels."
    )
    limit: Annotated[int, Field(ge=0, le=10_000), Number] | None = Field(
        None, description="At most this many; absent or null: 100."
    )
    offset: Annotated[int, Field(ge=0, le=2**31 - 1), Number] | None = Field(
        None, description="Number of namespaces to skip."
    )
    counts: Flag | None = Field(None, description="Add how many items each namespace holds.")

    def query(self) -> NamespaceQuery:
        """Return the query."""
        return NamespaceQuery(
            prefix=self.prefix or (),
            suffix=self.suffix or (),
            max_depth=self.max_depth,
            limit=100 if self.limit is None else self.limit,
            offset=self.offset or 0,
            with_counts=bool(self.counts),
        )


class _AddressQuery(Schema):
    namespace: WrittenNamespace = Field(
        "",
        description="Labels joined by dots, or a JSON array where labels hold dots.",
        examples=["users.alice"],
    )
    key: Key

    @property
    def labels(self) -> list[str]:
        """The labels of the namespace."""
        return parse_labels(self.namespace)

    def address(self, access: Access) -> Address:
        """Return the item's address; raises ForbiddenError."""
        return Address(access.authorize(self.labels, Verb.READ), self.key)


class ReadItem(_AddressQuery):
    """Which item to read, and how."""

    refresh_ttl: bool | None = Field(
        None, description="Restart the item's lifetime; absent: the server's setting."
    )
    as_of: Moment | None = Field(None, description="Read the state of that time.")
    omit_expired: bool = Field(True, description="false also shows an expired item.")


class ReadVersions(_AddressQuery):
    """Which item's history to read."""

    before: int | None = Field(None, ge=1, le=MAX_INTEGER, description="Only older versions.")
    limit: int = Field(100, ge=1, le=1000, description="At most this many.")


class Item(BaseModel):
    """An item as clients see it."""

    namespace: list[str] = Field(description="Labels from the outermost in.")
    key: str = Field(description="Name of the item in its namespace.")
    value: ItemValue
    version: int = Field(description="Grows with every change; also the ETag.")
    importance: float | None = Field(description="How much the memory matters, 0 to 1.")
    pinned: bool = Field(description="A search with a query returns it before all others.")
    valid_from: DateText | None = Field(description="When the memory became true, as given.")
    valid_to: DateText | None = Field(description="When the memory ceased to be true, as given.")
    said_first: datetime | None = Field(description="When its source was first said.")
    said_last: datetime | None = Field(description="When its source was last said.")
    source_class: SourceClass | None = Field(description="The kind of its source.")
    source: Source | None = Field(description="Where the memory came from.")
    expires_at: datetime | None = Field(description="When its lifetime ends; null: never.")
    created_at: datetime = Field(description="When it was first put.")
    updated_at: datetime = Field(description="When it was last put, patched or restored.")
    embedded: bool | None = Field(
        None,
        description="false: its text could not be embedded yet, so it is found by its words only; "
        "absent: it waits for nothing.",
    )
    stale: bool | None = Field(
        None,
        description="true: items that it rests on have changed or ended since it was written; "
        "absent: none has.",
    )

    @classmethod
    def members_of(cls, item: types.Item, access: Access) -> JsonObject:
        """Return an item as members for orjson; its value passes through as text."""
        members = {
            "namespace": access.relative(item.address.namespace),
            "key": item.address.key,
            "value": orjson.Fragment(item.value),
            "version": item.version,
            **_metadata_members(item.metadata),
            "expires_at": item.expires_at,
            "created_at": item.created_at,
            "updated_at": item.updated_at,
        }
        if not item.is_embedded:
            members["embedded"] = False
        if item.is_stale:
            members["stale"] = True
        return members


class ItemVersion(BaseModel):
    """One state in an item's history; `value` is null if the item ended."""

    version: int = Field(description="Grows with every change.")
    action: VersionAction = Field(description="The operation that led to this state.")
    value: ItemValue | None = Field(description="null if the item ended.")
    importance: float | None = Field(description="How much the memory mattered, 0 to 1.")
    pinned: bool | None = Field(description="Whether it was pinned; null if the item ended.")
    valid_from: DateText | None = Field(description="When the memory became true, as given.")
    valid_to: DateText | None = Field(description="When the memory ceased to be true, as given.")
    said_first: datetime | None = Field(description="When its source was first said.")
    said_last: datetime | None = Field(description="When its source was last said.")
    source_class: SourceClass | None = Field(description="The kind of its source.")
    source: Source | None = Field(description="Where the memory came from.")
    actor: str = Field(description="The key that made the change, and the job if it was one.")
    recorded_at: datetime = Field(description="When the change was made.")
    embedded: bool | None = Field(
        None,
        description="false: the present state, whose text could not be embedded yet; absent: it "
        "waits for nothing.",
    )

    @classmethod
    def members_of(cls, state: types.ItemVersion) -> JsonObject:
        """Return one state of an item as members for orjson."""
        waiting = {} if state.is_embedded else {"embedded": False}
        return {
            "version": state.version,
            "action": state.action,
            "value": None if state.value is None else orjson.Fragment(state.value),
            **_metadata_members(state.metadata),
            "actor": state.actor,
            "recorded_at": state.recorded_at,
            **waiting,
        }


class ItemVersions(BaseModel):
    """An item's history, newest first."""

    versions: list[ItemVersion] = Field(description="Empty for an item that never existed.")
    next_cursor: int | None = Field(
        description="Send it as `before` for the next page; null: this is the last."
    )

    @classmethod
    def members_of(cls, page: Page[types.ItemVersion]) -> JsonObject:
        """Return a page of an item's history as members for orjson."""
        return {
            "versions": [ItemVersion.members_of(state) for state in page.items],
            "next_cursor": page.next_cursor(lambda last: last.version),
        }


class NamespaceList(BaseModel):
    """Namespaces in ascending order."""

    namespaces: list[list[str]] = Field(description="Each a list of labels.")
    counts: list[int] | None = Field(
        None, description="How many items each namespace holds; absent unless asked for."
    )
    next_offset: int | None = Field(
        None,
        description="Send it as `offset` for the rest, if fewer than `limit` fit into one answer; "
        "otherwise absent.",
    )

    @classmethod
    def of(cls, listed: ListedNamespaces) -> Self:
        """Return the response, without the members that are absent."""
        optional = {"counts": listed.counts, "next_offset": listed.next_offset}
        given = {name: member for name, member in optional.items() if member is not None}
        return cls.model_validate({"namespaces": listed.labels, **given})


def _metadata_members(metadata: ItemMetadata | None) -> JsonObject:
    """Return an item's metadata as members for orjson; null for each if an item ended."""
    members: JsonObject = {name: getattr(metadata, name, None) for name in SHOWN_METADATA}
    if metadata is not None:
        for name in ("valid_from", "valid_to"):
            members[name] = members[name] and str(members[name])
        members["source"] = metadata.source and orjson.Fragment(metadata.source)
    return members
