"""Base classes, field types, and size limits of request and response bodies."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    TypeAdapter,
    WithJsonSchema,
    model_validator,
)

from app.config import Settings
from app.json_values import JsonObject, check_storable, check_storable_text
from app.namespaces import MAX_DEPTH, MAX_LABEL_CHARACTERS, check_labels, parse_labels
from app.partial_dates import PartialDate

KIB, MIB = 1 << 10, 1 << 20

ESCAPED = 3
"""Factor by which `\\u` escapes may enlarge a value's UTF-8 text."""


@dataclass(frozen=True, slots=True)
class BodyLimit:
    """The limit of one kind of body; `bytes` None: the server's setting alone."""

    bytes: int | None
    values: int
    items: int = 0
    """Number of item values that it may hold in addition to `bytes`."""
    in_thread: bool = False
    """True if it is validated in a thread, because that compiles schemas and patterns."""

    def max_bytes(self, settings: Settings) -> int:
        """Return the limit in bytes under a server's settings."""
        if self.bytes is None:
            return settings.max_body_bytes
        own = self.bytes + self.items * ESCAPED * settings.max_value_bytes
        return min(own, settings.max_body_bytes)


SMALL = BodyLimit(64 * KIB, 10_000)
SEARCH = BodyLimit(256 * KIB, 20_000)
CONFIGURATION = BodyLimit(2 * MIB, 50_000, in_thread=True)
CONVERSATION = BodyLimit(4 * MIB, 100_000, in_thread=True)
ITEM = BodyLimit(64 * KIB, 100_000, items=1)
MCP = BodyLimit(MIB, 20_000)
BATCH = BodyLimit(None, 100_000)


# The checks of the validators below, for the OpenAPI document alone: their messages say more than
# a failed pattern would.
CLEAN = {"pattern": r"^[^\x00]*$"}
_LABEL = {
    "type": "string",
    "minLength": 1,
    "maxLength": MAX_LABEL_CHARACTERS,
    "pattern": r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]+$",
}

MAX_MEMBERS = 40
"""Maximum members of an object in a request; its known fields are at most half of that."""

MAX_WRITTEN_CHARACTERS = 16_384
"""Maximum length of a namespace in a URL; enough for 16 labels of full length, all escaped."""

_DATE = re.compile(r"\d{4}-\d\d-\d\d")


class Body(BaseModel):
    """A body of a request, or a part of one."""

    body_limit: ClassVar[BodyLimit] = SMALL
    namespace_field: ClassVar[str] = "namespace"
    """The member with the namespace that the request is about."""


class Schema(Body):
    """A body whose unknown fields are mistakes worth naming."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _has_few_members(cls, members: Any) -> Any:
        # Each unknown member would become a mistake of its own, ten times the member's size.
        if isinstance(members, dict) and len(members) > MAX_MEMBERS:
            raise ValueError(
                f"has {len(members):,} members, more than there are fields; remove the unknown ones"
            )
        return members


def _checked_labels(labels: list[str]) -> list[str]:
    check_labels(labels)
    return labels


def _parsable(namespace: str) -> str:
    parse_labels(namespace)
    return namespace


def _not_empty(labels: list[str]) -> list[str]:
    if not labels:
        raise ValueError("is empty; give at least one label")
    return labels


def _only_number(number: object) -> object:
    if isinstance(number, (bool, str)):  # pydantic would take either for a number
        raise ValueError("is not a number; send one, without quotes")  # noqa: TRY004
    return number


def _only_date(moment: object) -> object:
    # pydantic would take numbers, in quotes too, for seconds since 1970.
    if not (isinstance(moment, str) and _DATE.match(moment)):
        raise ValueError('is not a date and time; send one such as "2026-01-31T12:00:00Z"')
    return moment


def _as_utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        return moment.replace(tzinfo=UTC)
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("is outside the years 1 to 9999 in UTC; send one inside") from error


Clean = Annotated[str, AfterValidator(check_storable_text), Field(json_schema_extra=CLEAN)]
"""Text that PostgreSQL can hold."""

Labels = Annotated[
    list[str],
    Field(
        description="Labels from the outermost in.",
        examples=[["users", "alice"]],
        json_schema_extra={"items": _LABEL, "maxItems": MAX_DEPTH},
    ),
    AfterValidator(_checked_labels),
]
"""A namespace or prefix; may be empty."""

ItemLabels = Annotated[Labels, AfterValidator(_not_empty), Field(json_schema_extra={"minItems": 1})]
"""A namespace that can hold items: at least one label."""

WrittenNamespace = Annotated[
    str,
    AfterValidator(_parsable),
    Field(
        max_length=MAX_WRITTEN_CHARACTERS,
        description="Labels joined by dots, or a JSON array where labels hold dots.",
    ),
]
"""A namespace in a query string; `parse_labels` takes it apart."""

Moment = Annotated[
    datetime, BeforeValidator(_only_date, json_schema_input_type=datetime), AfterValidator(_as_utc)
]
"""A time; without an offset it is read as UTC."""

Timestamp = Annotated[
    datetime,
    PlainSerializer(datetime.isoformat, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""A time in a response, with +00:00 for UTC, as in responses that orjson writes."""

_MOMENT: TypeAdapter[datetime] = TypeAdapter(Moment)


def parse_time(text: object) -> datetime:
    """Return the UTC time that a text gives, as in a request's `Moment`; raises ValueError."""
    return _MOMENT.validate_python(text)


def parse_date(text: object) -> PartialDate:
    """Return the year, month, day, or time that a text gives; raises ValueError."""
    period = PartialDate.of_period(text) if isinstance(text, str) else None
    return period or PartialDate(parse_time(text))


def _checked_date(text: object) -> PartialDate:
    try:
        return parse_date(text)
    except ValueError as error:
        raise ValueError(
            'is not a date; send a time such as "2026-01-31T12:00:00Z", or a day, month, or year: '
            '"2026-01-31", "2026-01", "2026"'
        ) from error


WrittenDate = Annotated[
    PartialDate,
    PlainValidator(_checked_date),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9]{4}(-[0-9]{2}(-[0-9]{2}.*)?)?$"}),
]
"""A year, month, day, or time, kept as exact as it was given."""


def _storable_object(value: JsonObject) -> JsonObject:
    check_storable(value, "$")
    return value


StorableObject = Annotated[JsonObject, AfterValidator(_storable_object)]
"""A JSON object that PostgreSQL can hold; a mistake is reported with its path from `$`."""

Number = BeforeValidator(_only_number)
"""For an integer that only a number of JSON may be read as; strict mode would refuse 5.0."""

Real = Annotated[float, Field(strict=True, allow_inf_nan=False)]
"""A number of JSON, not text or a truth value that could be read as one."""

Flag = Annotated[bool, Field(strict=True)]
"""JSON's true or false, and nothing that resembles them."""
