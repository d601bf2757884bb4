"""Bodies of the search route."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field

from app.schemas import CLEAN, Flag, Labels, Number, Schema, storable
from app.store.schemas import Item

DEFAULT_LIMIT = 10
MAX_LIMIT = 1000
MAX_OFFSET = 100_000
MAX_QUERY_CHARACTERS = 20_000

QueryText = Annotated[
    str, Field(max_length=MAX_QUERY_CHARACTERS, json_schema_extra=CLEAN), AfterValidator(storable)
]


class SearchItems(Schema):
    """What to look for, and where."""

    namespace_prefix: Labels | None = Field(
        None,
        description="Look at and below this namespace; empty: everywhere.",
        examples=[["users"]],
    )
    query: QueryText | None = Field(
        None,
        description="Text to find items near to; without it the newest come first.",
        examples=["what does Alice like to eat?"],
    )
    filter: Annotated[dict[str, Any], Field(title="Filter")] | None = Field(
        None,
        description="Conditions on the value; see docs/reference/filters.md.",
        examples=[{"kind": "preference"}],
    )
    limit: Annotated[int, Field(ge=0, le=MAX_LIMIT), Number] | None = Field(
        None,
        description=f"At most this many; absent or null: {DEFAULT_LIMIT}.",
    )
    offset: Annotated[int, Field(ge=0, le=MAX_OFFSET), Number] | None = Field(
        None, description="Leave out the first this many."
    )
    refresh_ttl: Flag | None = Field(
        None, description="Restart the lifetime of what is found; absent: as the server is set."
    )


class FoundItem(Item):
    """An item, and how near it is to the query."""

    score: float | None = Field(description="At most 1; null where nothing was compared.")


class FoundItems(BaseModel):
    """What was found, best first."""

    items: list[FoundItem] = Field(description="Empty when nothing was found.")
