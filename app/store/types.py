"""Items, the states in their history, the commands that change them, and their errors."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Literal, NamedTuple, Self, TypeAlias

from app.conversations.messages import SourceClass
from app.errors import ConflictError, InvalidRequestError, NotFoundError
from app.http.headers import UNCONDITIONAL, Precondition
from app.indexing.passages import Embedded, EmbeddingFailedError, Passage
from app.json_values import JsonObject, JsonText, UnstorableError, check_storable, to_json_text
from app.namespaces import StoredNamespace
from app.partial_dates import PartialDate
from app.providers.embedder import Vector

VersionAction: TypeAlias = Literal["put", "patch", "restore", "delete", "expire"]
PutAction: TypeAlias = Literal["put", "patch", "restore"]


class ItemNotFoundError(NotFoundError):
    """There is no such item, or it has expired."""

    code = "item_not_found"
    title = "Item not found"

    def __init__(self, key: str) -> None:
        super().__init__(
            f"There is no item {key!r} in this namespace. Put it first, "
            "or look for it with POST /v1/store/items/search."
        )


class VersionNotFoundError(NotFoundError):
    """The item never had that version."""

    code = "version_not_found"
    title = "Version not found"

    def __init__(self, key: str, version: int) -> None:
        super().__init__(
            f"The item {key!r} has no version {version}. "
            "GET /v1/store/items/versions lists the ones it has."
        )


class VersionHasNoValueError(ConflictError):
    """The version records an end, so there is nothing to restore."""

    code = "version_has_no_value"
    title = "Version has no value"

    def __init__(self, key: str, version: int, action: str) -> None:
        super().__init__(
            f"Version {version} of {key!r} records that the item ended ({action}). "
            "Restore an earlier version, one that has a value."
        )


class InvalidValueError(InvalidRequestError):
    """A value that cannot be stored."""

    code = "invalid_value"
    title = "Invalid value"

    @classmethod
    def of(cls, error: UnstorableError) -> Self:
        """Return the error that names the part which cannot be stored."""
        return cls(f"{error}.", field=error.place)


class Address(NamedTuple):
    """Where an item is stored."""

    namespace: StoredNamespace
    key: str

    @property
    def description(self) -> str:
        """The item in an error message."""
        return f"the item {self.key!r}"


@dataclass(frozen=True, slots=True)
class ItemMetadata:
    """Optional metadata of an item.

    `said_first` and `said_last` are when its source was said, `source_class` is the kind of source.
    `questions` are ones that it answers; they are indexed with it, and never returned.
    """

    importance: float | None = None
    pinned: bool = False
    valid_from: PartialDate | None = None
    valid_to: PartialDate | None = None
    said_first: datetime | None = None
    said_last: datetime | None = None
    source_class: SourceClass | None = None
    source: JsonText | None = None
    questions: tuple[str, ...] = ()


def source_text(members: Mapping[str, object]) -> JsonText:
    """Return an item's source as JSON text; raises InvalidValueError."""
    try:
        check_storable(members, "source")
    except UnstorableError as error:
        raise InvalidValueError.of(error) from error
    return to_json_text(members)


NO_METADATA = ItemMetadata()
METADATA_NAMES = tuple(field.name for field in fields(ItemMetadata))
SHOWN_METADATA = tuple(name for name in METADATA_NAMES if name != "questions")


@dataclass(frozen=True, slots=True)
class Item:
    """The present state of an item, or an earlier one, which has the id 0."""

    id: int
    address: Address
    value: JsonText
    version: int
    metadata: ItemMetadata
    index_paths: tuple[str, ...] | None
    """Paths to embed; None for the server's setting."""
    ttl: timedelta | None
    expires_at: datetime | None
    created_at: datetime
    updated_at: datetime
    is_embedded: bool = True
    """False while it waits for the vectors of its passages."""
    is_stale: bool = False
    """True if items that it rests on have changed or ended since it was written."""

    @property
    def size(self) -> int:
        """Bytes of the value's text."""
        return len(self.value.encode())

    def parse_value(self) -> JsonObject:
        """Return the value, which is an object."""
        value: JsonObject = json.loads(self.value)
        return value


@dataclass(frozen=True, slots=True)
class ItemVersion:
    """One state in an item's history; one that records its end has no value and no metadata."""

    address: Address
    version: int
    action: VersionAction
    value: JsonText | None
    metadata: ItemMetadata | None
    index_paths: tuple[str, ...] | None
    actor: str
    recorded_at: datetime
    is_embedded: bool = True
    """False for the present state while it waits for the vectors of its passages."""


class Ttl(Enum):
    """The lifetime of an item that is put, unless it is a duration."""

    DEFAULT = "default"
    """The server's setting."""
    NONE = "none"
    """The item never expires."""
    KEEP = "keep"
    """The lifetime of the item that is replaced, which starts again."""


@dataclass(frozen=True, slots=True)
class Put:
    """The whole next state of an item; `text` is the value's JSON if it is stored already."""

    address: Address
    value: JsonObject
    metadata: ItemMetadata = NO_METADATA
    index_paths: Sequence[str] | None = None
    ttl: timedelta | Ttl = Ttl.DEFAULT
    action: PutAction = "put"
    precondition: Precondition = UNCONDITIONAL
    text: JsonText | None = None
    requires_embedding: bool = False
    """Whether it fails if its text cannot be embedded now."""

    @classmethod
    def replacing(
        cls,
        item: Item,
        *,
        value: JsonObject | None = None,
        metadata: ItemMetadata | None = None,
        ttl: timedelta | Ttl = Ttl.KEEP,
        action: PutAction = "put",
    ) -> Self:
        """Replace an item at the version that was read, and keep whatever is not given."""
        kept = Ttl.NONE if item.ttl is None else item.ttl
        return cls(
            address=item.address,
            value=item.parse_value() if value is None else value,
            metadata=item.metadata if metadata is None else metadata,
            index_paths=item.index_paths,
            ttl=kept if ttl is Ttl.KEEP else ttl,
            action=action,
            precondition=Precondition.at(item.version),
            text=item.value if value is None else None,
        )

    @classmethod
    def restoring(cls, past: ItemVersion, precondition: Precondition, ttl: timedelta | Ttl) -> Self:
        """Make an earlier version, which must have a value, present again."""
        if past.value is None:
            raise ValueError("the item ended at this version")
        return cls(
            address=past.address,
            value=json.loads(past.value),
            metadata=past.metadata or NO_METADATA,
            index_paths=past.index_paths,
            ttl=ttl,
            action="restore",
            precondition=precondition,
            text=past.value,
        )


@dataclass(frozen=True, slots=True)
class Patch:
    """A JSON merge patch of an item's value, and a change of its metadata."""

    address: Address
    value: JsonObject
    change_metadata: Callable[[ItemMetadata], ItemMetadata] = lambda metadata: metadata
    precondition: Precondition = UNCONDITIONAL


@dataclass(frozen=True, slots=True)
class Delete:
    """The end of an item."""

    address: Address
    precondition: Precondition = UNCONDITIONAL


@dataclass(frozen=True, slots=True)
class PutResult:
    """Result of a put; `inserted` is false if a row was overwritten."""

    item_id: int
    version: int
    inserted: bool
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class PreparedPut:
    """A put that was checked and cut into passages.

    `vectors` is None before the passages are embedded; afterward it has a vector for each passage,
    or None for one that waits.
    """

    address: Address
    value: JsonText
    metadata: ItemMetadata
    index_paths: Sequence[str] | None
    ttl: timedelta | None
    action: PutAction
    precondition: Precondition
    passages: Sequence[Passage]
    requires_embedding: bool = False
    vectors: Sequence[Vector | None] | None = None
    waits: bool = False
    """Whether the item has to wait for vectors."""

    @property
    def texts(self) -> list[str]:
        """The passages' texts."""
        return [passage.text for passage in self.passages]

    def with_vectors(self, embedded: Sequence[Embedded]) -> Self:
        """Return the put with its passages' vectors; raises EmbeddingFailedError if required."""
        errors = [one for one in embedded if isinstance(one, EmbeddingFailedError)]
        if errors and self.requires_embedding:
            raise errors[0]
        vectors = [None if isinstance(one, EmbeddingFailedError) else one for one in embedded]
        return replace(self, vectors=vectors, waits=bool(errors))

    def to_item(self, result: PutResult) -> Item:
        """Return the item as it was written."""
        return Item(
            id=result.item_id,
            address=self.address,
            value=self.value,
            version=result.version,
            metadata=self.metadata,
            index_paths=None if self.index_paths is None else tuple(self.index_paths),
            ttl=self.ttl,
            expires_at=result.expires_at,
            created_at=result.created_at,
            updated_at=result.updated_at,
            is_embedded=not self.waits,
        )


Write: TypeAlias = PreparedPut | Delete
