"""Bodies of the search route."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, Field, model_validator

from app.auth.access import Access
from app.conversations.messages import SOURCE_CLASSES
from app.json_values import JsonObject, check_storable_text
from app.schemas import CLEAN, SEARCH, Flag, Labels, Moment, Number, Real, Schema
from app.search.hits import Hit, SearchPage
from app.search.plan import DEFAULT_LIMIT, SearchQuery, Sort
from app.search.scoring import HalfLives, Mode, Weights
from app.search.service import MAX_DIVERSE
from app.store.schemas import Item

MAX_LIMIT = 1000
MAX_OFFSET = 100_000
MAX_QUERY_CHARACTERS = 20_000
MAX_CURSOR_CHARACTERS = 6_000
MAX_TOKENS = 10_000_000
MAX_DAYS = 36_500
MAX_WEIGHT = 1000
MAX_CONTEXT = 10
MAX_NEIGHBORS = 1000
"""Maximum neighbors of all items of a page, in one direction."""

QueryText = Annotated[
    str,
    Field(max_length=MAX_QUERY_CHARACTERS, json_schema_extra=CLEAN),
    AfterValidator(check_storable_text),
]
Weight = Annotated[Real, Field(ge=0, le=MAX_WEIGHT)]
Days = Annotated[Real, Field(ge=0.001, le=MAX_DAYS)]
Share = Annotated[Real, Field(ge=0, le=1)]


def _of_classes(weights: dict[str, float]) -> dict[str, float]:
    if unknown := weights.keys() - set(SOURCE_CLASSES):
        known = ", ".join(SOURCE_CLASSES)
        raise ValueError(f'has "{min(unknown)[:40]}", which is no class; use {known}')
    return weights


ClassWeights = Annotated[
    dict[str, Share],
    Field(
        title="ClassWeights",
        max_length=len(SOURCE_CLASSES),
        json_schema_extra={"propertyNames": {"enum": list(SOURCE_CLASSES)}},
    ),
    AfterValidator(_of_classes),
]
Part = Annotated[float, Field(ge=0, le=1)]


class BlendWeights(Schema):
    """How much each part of the score counts; only the proportions matter."""

    relevance: Weight | None = Field(
        None, description="How well the item answers the query; absent: 1."
    )
    recency: Weight | None = Field(
        None, description="How recently it was said, or else updated; absent: 0."
    )
    importance: Weight | None = Field(
        None, description="The item's importance, 0.5 if it has none; absent: 0."
    )
    strength: Weight | None = Field(
        None, description="How often and how recently the item was read; absent: 0."
    )

    @model_validator(mode="after")
    def _has_a_weight(self) -> Self:
        if not self.as_weights().total:
            raise ValueError("are all 0; give at least one part a weight")
        return self

    def as_weights(self) -> Weights:
        """Return the weights with their defaults."""
        relevance = 1.0 if self.relevance is None else self.relevance
        return Weights(relevance, self.recency or 0.0, self.importance or 0.0, self.strength or 0.0)


class BlendHalfLives(Schema):
    """Days after which a part is worth half."""

    recency: Days | None = Field(
        None, description="Since it was said, or else updated; absent: 30."
    )
    strength: Days | None = Field(
        None, description="Since the item was read, if it was read once; absent: 7."
    )

    def as_half_lives(self) -> HalfLives:
        """Return the half-lives with their defaults."""
        return HalfLives(self.recency or 30.0, self.strength or 7.0)


class SearchItems(Schema):
    """A search: conditions, ranking, and page."""

    body_limit = SEARCH
    namespace_field = "namespace_prefix"

    namespace_prefix: Labels | None = Field(
        None,
        description="Search at and below this namespace; empty: everywhere.",
        examples=[["users"]],
    )
    query: QueryText | None = Field(
        None,
        description="The topic or question; without it, items are listed.",
        examples=["what does Alice like to eat?"],
    )
    mode: Mode | None = Field(
        None,
        description="hybrid (default): by meaning and by words; vector: by meaning alone, the "
        "score is the cosine similarity; text: by words alone, items without any are left out.",
    )
    filter: Annotated[JsonObject, Field(title="Filter")] | None = Field(
        None,
        description="Conditions on the value; see docs/reference/filters.md.",
        examples=[{"kind": "preference"}],
    )
    valid_at: Moment | None = Field(
        None, description="Only items that are valid at this time, by valid_from and valid_to."
    )
    weights: BlendWeights | None = Field(
        None, description="The parts of the score; absent: relevance alone."
    )
    half_life_days: BlendHalfLives | None = Field(
        None, description="How fast recency and strength fade."
    )
    class_weights: ClassWeights | None = Field(
        None,
        description="Factors of the score by source_class, such as 0.5 for tool; absent: 1.",
        examples=[{"tool": 0.5, "document": 0.5}],
    )
    min_score: Annotated[Real, Field(ge=0, le=1)] | None = Field(
        None, description="Leave out items that score less or were not compared; pinned items stay."
    )
    diversity: Annotated[Real, Field(ge=0, le=1)] | None = Field(
        None,
        description="How far an item that resembles a better one moves down; 0: not at all.",
    )
    max_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS), Number] | None = Field(
        None,
        description="Leave out items whose values do not fit into roughly this many tokens, "
        "together with those before them on the page.",
    )
    limit: Annotated[int, Field(ge=0, le=MAX_LIMIT), Number] | None = Field(
        None,
        description=f"Maximum items of the page; absent or null: {DEFAULT_LIMIT}.",
    )
    offset: Annotated[int, Field(ge=0, le=MAX_OFFSET), Number] | None = Field(
        None, description="Skip this many items."
    )
    cursor: Annotated[str, Field(max_length=MAX_CURSOR_CHARACTERS)] | None = Field(
        None, description="next_cursor of the previous page of the same search."
    )
    sort: Sort | None = Field(
        None, description="Order of a search without a query; - is descending, default -updated_at."
    )
    with_total: Flag | None = Field(
        None, description="Also return the number of items on all pages."
    )
    context: Annotated[int, Field(ge=0, le=MAX_CONTEXT), Number] | None = Field(
        None,
        description="Return each item of a thread with this many messages before and after it; "
        "absent: none.",
    )
    explain: Flag | None = Field(None, description="Also explain each score.")
    refresh_ttl: Flag | None = Field(
        None,
        description="Restart the lifetimes of the items on the page; absent: the server's setting.",
    )

    def to_query(self, *, with_expired: bool = False) -> SearchQuery:
        """Return the query, with the defaults of everything that is absent."""
        return SearchQuery(
            namespace=self.namespace_prefix or (),
            text=self.query,
            mode=self.mode or "hybrid",
            filter=self.filter,
            valid_at=self.valid_at,
            with_expired=with_expired,
            weights=(self.weights or BlendWeights()).as_weights(),
            half_lives=(self.half_life_days or BlendHalfLives()).as_half_lives(),
            class_weights=self.class_weights or {},
            min_score=self.min_score,
            diversity=self.diversity or 0.0,
            max_tokens=self.max_tokens,
            limit=DEFAULT_LIMIT if self.limit is None else self.limit,
            offset=self.offset or 0,
            cursor=self.cursor,
            sort=self.sort or "-updated_at",
            with_total=bool(self.with_total),
            context=self.context or 0,
            explain=bool(self.explain),
            refresh_ttl=self.refresh_ttl,
        )

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.cursor is not None and self.offset:
            raise ValueError("cursor and offset are both given; send one of them")
        if self.cursor is not None and self.diversity:
            raise ValueError("cursor and diversity are both given; use offset instead of cursor")
        limit = DEFAULT_LIMIT if self.limit is None else self.limit
        if self.diversity and (self.offset or 0) + limit > MAX_DIVERSE:
            raise ValueError(f"diversity reaches {MAX_DIVERSE} results; lower offset or limit")
        if limit * (self.context or 0) > MAX_NEIGHBORS:
            raise ValueError(f"limit times context is more than {MAX_NEIGHBORS}; lower one")
        if self.sort is not None and self.query and self.query.strip():
            raise ValueError("sort and query are both given; a query ranks by score")
        return self


class MatchedWord(BaseModel):
    """A word of the query, and how fully the item covers it."""

    word: str = Field(description="As in the query, in lower case.")
    weight: Part = Field(description="How fully the passage covers it, by frequency and length.")
    nearby: Part = Field(description="The same for the turns around the item in its thread.")
    rarity: float = Field(description="How rare it is in the scope; rarer words count more.")


class Explanation(BaseModel):
    """How an item's score was computed."""

    relevance: float | None = Field(description="By meaning and words; null: nothing to compare.")
    similarity: float | None = Field(description="Cosine of the passage's and query's vectors.")
    lexical: Part | None = Field(description="Share of the query's words covered; BM25.")
    recency: Part = Field(description="Halved with every half-life since said_last, or the update.")
    importance: Part = Field(description="The item's, or 0.5.")
    strength: Part = Field(description="How firmly it is remembered, by its uses.")
    class_weight: Part = Field(description="The factor of its source_class; 1 without one.")
    pinned: bool = Field(description="Whether it comes before all others because it is pinned.")
    words: list[MatchedWord] = Field(description="Words that the item covers, itself or nearby.")
    passage: str | None = Field(description="The text that matched best.")
    found_by: list[Literal["vector", "text", "context"]] = Field(
        description="Lists of candidates that it is in; context: by a neighbor in its thread."
    )


class SearchedWord(BaseModel):
    """A word of the query that passages were compared with."""

    word: str = Field(description="As in the query, in lower case.")
    rarity: float = Field(description="Its weight; the lexical score is a share of their sum.")
    passages: int = Field(
        description="Passages that have it; an estimate unless exact. 0: ignored."
    )


class SearchDetails(BaseModel):
    """How the scope was searched."""

    mode: Mode = Field(description="The requested mode, or hybrid.")
    scope: Literal["exact", "index", "filter_first"] = Field(
        description="exact: every passage was compared; index: the indexes named candidates; "
        "filter_first: all items that pass the filter were compared."
    )
    passages: int = Field(description="Passages in the scope; an estimate unless exact.")
    words: list[SearchedWord] = Field(description="Words of the query that were searched for.")
    weights: BlendWeights = Field(description="The parts of the score.")
    half_life_days: BlendHalfLives = Field(description="How fast recency and strength fade.")


class SearchHit(Item):
    """An item, and how well it answers the query."""

    score: float | None = Field(description="At most 1; null if nothing was compared.")
    explanation: Explanation | None = Field(None, description="Present with explain.")
    context: list[Item] | None = Field(
        None,
        description="With context: the messages around it in its thread, in order; of a memory, "
        "also those at its own position.",
    )


class SearchResults(BaseModel):
    """A page of items, best first."""

    items: list[SearchHit] = Field(description="Empty if nothing was found.")
    next_cursor: str | None = Field(
        description="Send it for the next page; null: this is the last."
    )
    total: int | None = Field(
        None, description="The number of items on all pages; present with with_total."
    )
    search: SearchDetails | None = Field(None, description="Present with explain.")


def _context_members(hit: Hit, access: Access) -> JsonObject:
    if hit.context is None:
        return {}
    return {"context": [Item.members_of(item, access) for item in hit.context]}


def encode_page(page: SearchPage, access: Access) -> JsonObject:
    """Return the members of `SearchResults`; values pass through as text, never parsed."""
    members: JsonObject = {
        "items": [
            Item.members_of(hit.item, access)
            | {"score": hit.score}
            | ({} if hit.explanation is None else {"explanation": hit.explanation})
            | _context_members(hit, access)
            for hit in page.hits
        ],
        "next_cursor": page.next_cursor,
    }
    if page.total is not None:
        members["total"] = page.total
    if page.search is not None:
        members["search"] = page.search
    return members
