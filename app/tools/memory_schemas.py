"""Arguments and results of the tools whose models choose namespaces.

Descriptions and docstrings of these models are sent to language models.
"""

from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field, WithJsonSchema

from app.json_values import JsonObject, check_storable_text
from app.schemas import ItemLabels, Labels, Number, Real, Schema
from app.search.schemas import MAX_QUERY_CHARACTERS

DEFAULT_LIMIT = 10
MAX_LIMIT = 50
MAX_NAMESPACES = 200
MAX_TEXT_CHARACTERS = 100_000
MAX_ID_CHARACTERS = 40_000
"""Enough for 16 labels and a key of maximum length, every character escaped."""


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty; write what is meant")
    return text


Text = Annotated[
    str,
    Field(min_length=1, max_length=MAX_TEXT_CHARACTERS),
    AfterValidator(check_storable_text),
    AfterValidator(_not_blank),
]
MemoryId = Annotated[
    str,
    Field(max_length=MAX_ID_CHARACTERS, description="As search_memories returns it."),
    AfterValidator(check_storable_text),
]
Query = Annotated[str, Field(max_length=MAX_QUERY_CHARACTERS), AfterValidator(check_storable_text)]
Importance = Annotated[Real, Field(ge=0, le=1)]


class SearchMemoriesArguments(Schema):
    """What to look for."""

    query: Query | None = Field(
        None,
        description="What the memories ought to be about: a question or a few words. Without it "
        "the newest memories are listed.",
    )
    namespace: Labels | None = Field(
        None,
        description='Look at and below this namespace; default ["memories"]; [] is everywhere.',
    )
    filter: Annotated[JsonObject, WithJsonSchema({"type": "string"})] | None = Field(
        None,
        description="Conditions on the value, by path, as JSON, such as "
        '{"kind": "profile"}, {"content.name": {"$eq": "Ann"}} or {"score": {"$gte": 3}}.',
    )
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT), Number] | None = Field(
        None, description=f"At most this many; default {DEFAULT_LIMIT}."
    )


class RememberArguments(Schema):
    """What to keep."""

    text: Text = Field(
        description="One fact, preference, plan or event, in a sentence or two that make sense to "
        "somebody who has not read this conversation."
    )
    namespace: ItemLabels | None = Field(
        None, description='Where to keep it, such as ["users", "ann"]; default ["memories"].'
    )
    importance: Importance | None = Field(None, description="How much it matters, 0 to 1.")


class UpdateMemoryArguments(Schema):
    """What a memory is to say from now on."""

    id: MemoryId
    text: Text = Field(description="The whole new text.")
    importance: Importance | None = Field(
        None, description="How much it matters, 0 to 1; without it, as before."
    )


class ForgetMemoryArguments(Schema):
    """Which memory to forget."""

    id: MemoryId


class ListNamespacesArguments(Schema):
    """Which namespaces to list."""

    prefix: Labels | None = Field(None, description="Only those that begin with these labels.")


class ExtractMemoriesArguments(Schema):
    """What to learn from."""

    text: Text = Field(description="A conversation, notes or a document, as it is.")
    namespace: ItemLabels | None = Field(
        None, description='Where to keep what is learned; default ["memories"].'
    )


class Memory(BaseModel):
    """A memory as models see it."""

    id: str = Field(description="What the other tools take.")
    namespace: list[str] = Field(description="Where it is kept.")
    value: JsonObject = Field(description="What it says: most often its text, as content.")
    score: float | None = Field(None, description="How well it fits the query, 0 to 1.")
    importance: float | None = Field(None, description="How much it matters, 0 to 1.")
    embedded: bool | None = Field(
        None, description="false: so far it is found by its words only, not by its meaning."
    )
    updated_at: datetime = Field(description="When it was last changed.")


class MemoryList(BaseModel):
    """What was found, best first, or newest first where there was no query."""

    memories: list[Memory]
    note: str | None = Field(None, description="What was left out, and how to get it.")


class MemoryReference(BaseModel):
    """The memory that was stored, changed or forgotten."""

    id: str


class RememberedMemory(MemoryReference):
    """The memory that says it now."""

    note: str | None = Field(
        None, description="Present if it, or something similar, was already remembered."
    )


class NamespaceCount(BaseModel):
    """A place that holds memories."""

    namespace: list[str]
    memories: int = Field(description="How many it holds.")


class NamespaceList(BaseModel):
    """Namespaces in ascending order."""

    namespaces: list[NamespaceCount]
    complete: bool = Field(description="false: there are more; ask with a longer prefix.")
    note: str | None = Field(None, description="What was left out, and how to get it.")


class ExtractedChange(BaseModel):
    """A change that an extraction made or proposes."""

    action: str = Field(description="insert, update or delete.")
    id: str
    value: JsonObject | None = Field(None, description="What the memory says now.")


class ExtractionResult(BaseModel):
    """What came of an extraction."""

    state: str = Field(
        description="succeeded; awaiting_review: the changes wait for a person; queued or running: "
        "it goes on in the background, and its memories will be found later."
    )
    job_id: str
    changes: list[ExtractedChange] = Field(
        description="Empty, when it succeeded: there was nothing new to remember."
    )
    problem: str | None = Field(
        None, description="Why it has not succeeded so far; it is tried again by itself."
    )


_NOT_FOR_MODELS = {"examples", "pattern", "maxLength"}
"""Keywords that some providers refuse, at least with large numbers; calls are checked anyway."""


def plain_schema(model: type[BaseModel], *, without: str | None = None) -> JsonObject:
    """Return a model's JSON Schema in its simplest form, without the member `without`.

    It has no references, no generated titles, and no `null` as the type of an optional member.
    """
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})
    schema["properties"].pop(without, None)
    plain: JsonObject = _simplify(schema, definitions)
    return plain


def _simplify(node: Any, definitions: JsonObject) -> Any:
    if isinstance(node, list):
        return [_simplify(part, definitions) for part in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return _simplify(definitions[node["$ref"].removeprefix("#/$defs/")], definitions)
    kinds = [kind for kind in node.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) == 1:
        rest = {name: part for name, part in node.items() if name not in {"anyOf", "default"}}
        node = {**kinds[0], **rest}
    left_out = {"title", *_NOT_FOR_MODELS} if "type" in node else set()
    return {
        name: _simplify(part, definitions) for name, part in node.items() if name not in left_out
    }
