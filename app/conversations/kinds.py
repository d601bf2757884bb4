"""Kinds of memory: the built-in ones, and the kinds that clients define."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from app.conversations.fields import Instructions, match_pattern
from app.conversations.portable_schema import portable_schema
from app.conversations.schema_assertions import Budget
from app.conversations.schema_validator import check_object_schema, validator_of
from app.json_values import JsonObject
from app.schemas import Flag, Schema, StorableObject

KIND_NAME = r"^[A-Za-z][A-Za-z0-9_-]{0,55}$"
"""The tool of a kind is `insert_<kind>`, and providers accept names of up to 64 characters."""

MESSAGE_KIND = "message"
"""Kind of items that hold messages verbatim; no manager extracts it."""

RESERVED = frozenset({"update_memory", "delete_memory", "no_change", "done"})
"""Names of the tools that models get besides one for each kind."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A named JSON Schema for memories; a `singleton` has one document, such as a profile."""

    name: str
    description: str
    schema: JsonObject
    singleton: bool = False


def _string(description: str) -> JsonObject:
    return {"type": "string", "minLength": 1, "description": description}


def _strings(description: str) -> JsonObject:
    return {"type": "array", "items": {"type": "string"}, "description": description}


def _object(properties: JsonObject, *, required: Sequence[str]) -> JsonObject:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


MEMORY = Kind(
    name="memory",
    description=(
        "One thing worth remembering: a fact, a preference, a plan, an event. Use one memory for "
        "each thing, so that it can be changed or dropped by itself later."
    ),
    schema=_object(
        {
            "content": _string(
                "A sentence or two that make sense to somebody who never saw the conversation: "
                'names instead of pronouns, dates instead of "yesterday".'
            )
        },
        required=["content"],
    ),
)

PROFILE = Kind(
    name="profile",
    description=(
        "What is known about the user as a person, in one document that is kept up to date. Fill "
        "in only what was said; correct what has changed; put anything lasting that fits no other "
        "field into the facts."
    ),
    schema={
        "type": "object",
        "properties": {
            "name": _string("The user's full name, as far as it is known."),
            "preferred_name": _string("What the user wants to be called."),
            "language": _string("The language the user wants answers in."),
            "timezone": _string("Where the user's clock is, such as Europe/Berlin."),
            "occupation": _string("What the user works as, and where."),
            "interests": _strings("What the user likes doing or talking about."),
            "facts": _strings("Other lasting facts about the user, one sentence each."),
        },
    },
    singleton=True,
)

EPISODE = Kind(
    name="episode",
    description=(
        "An experience to learn from: a situation, how it was thought about, what was done and "
        "what came of it. Use it when something worked notably well or badly, told in hindsight "
        "so that it helps in a similar situation."
    ),
    schema=_object(
        {
            "observation": _string(
                "What the situation was: what was asked, what mattered about it."
            ),
            "thoughts": _string(
                "How the way to go was found, from the point of view of the agent."
            ),
            "action": _string(
                "What was done, how and in what form, with what is needed to repeat it."
            ),
            "result": _string("What came of it, and what to do again or otherwise next time."),
        },
        required=["observation", "thoughts", "action", "result"],
    ),
)

TRIPLE = Kind(
    name="triple",
    description=(
        "A relation between two things, people or ideas, as in a knowledge graph. Use one triple "
        "for each relation, and the same name for the same thing everywhere."
    ),
    schema=_object(
        {
            "subject": _string("Who or what the relation starts from."),
            "predicate": _string('The relation, in few words, such as "works for".'),
            "object": _string("Who or what the relation leads to."),
            "context": _string("When, where or under what condition it holds, if that was said."),
        },
        required=["subject", "predicate", "object"],
    ),
)


def schema_for_models(kind: Kind) -> JsonObject:
    """Return the schema of a kind's content in the form that models are sent."""
    schema = portable_schema(kind.schema)
    # A profile may have further members, which clients write; strict providers refuse open objects.
    is_profile = kind.schema == PROFILE.schema
    return {**schema, "additionalProperties": False} if is_profile else schema


BUILT_IN = {kind.name: kind for kind in (MEMORY, PROFILE, EPISODE, TRIPLE)}
DEFAULT = (MEMORY,)


def check_built_in(name: str) -> str:
    """Return the name of a built-in kind; ValueError if there is none of that name."""
    if name not in BUILT_IN:
        raise ValueError(
            f'"{name}" is no built-in kind; those are {", ".join(BUILT_IN)}. '
            "A kind of your own has a schema"
        )
    return name


def check_kind_name(name: str) -> str:
    """Return the name of a client's own kind; ValueError if it is the name of a tool."""
    if name.lower() in RESERVED:
        raise ValueError(f'is "{name}", which is reserved for a tool; choose another')
    return name


def check_distinct_names(names: Iterable[str]) -> None:
    """Raise ValueError if two kinds of a manager have the same name, ignoring case."""
    seen: set[str] = set()
    for name in names:
        if name.lower() in seen:
            raise ValueError(f'names "{name}" twice; give every kind a name of its own')
        seen.add(name.lower())


ObjectSchema = Annotated[
    StorableObject,
    Field(title="ObjectSchema", description="A JSON Schema (draft 2020-12) of an object."),
    AfterValidator(check_object_schema),
]
BuiltInKind = Annotated[
    str,
    Field(title="BuiltInKind", json_schema_extra={"enum": list(BUILT_IN)}),
    AfterValidator(check_built_in),
]


class MemoryKind(Schema):
    """A kind of memory: a built-in kind, or your own kind with its JSON Schema."""

    name: Annotated[
        str,
        Field(json_schema_extra={"pattern": KIND_NAME}),
        match_pattern(KIND_NAME, 'a name of up to 56 letters, digits, "_" and "-", a letter first'),
        AfterValidator(check_kind_name),
    ] = Field(
        description="Name of the kind, stored with its memories. Without a schema, a built-in "
        f"kind: {', '.join(BUILT_IN)}.",
        examples=["profile"],
    )
    description: Instructions | None = Field(
        None, description="Purpose of the kind, for the model; absent: the schema's description."
    )
    json_schema: ObjectSchema | None = Field(
        None,
        alias="schema",
        description="A JSON Schema (draft 2020-12) of an object; absent: that of the built-in kind "
        "of this name.",
    )
    singleton: Flag | None = Field(
        None,
        description="true: the namespace has one document of this kind, such as a profile; "
        "absent: false, or the built-in kind's own.",
    )

    @model_validator(mode="after")
    def _has_a_schema(self) -> Self:
        if self.json_schema is None:
            check_built_in(self.name)
        return self

    def to_kind(self) -> Kind:
        """Return the kind with its schema."""
        if self.json_schema is None:
            built_in = BUILT_IN[self.name]
            singleton = built_in.singleton if self.singleton is None else self.singleton
            described = self.description or built_in.description
            return replace(built_in, description=described, singleton=singleton)
        described = self.description or self.json_schema.get("description") or ""
        return Kind(self.name, described, self.json_schema, bool(self.singleton))


def find_kind(content: JsonObject, kinds: Iterable[Kind], budget: Budget) -> str | None:
    """Return the name of the first kind whose schema allows the content; None if there is none.

    Raises TooManyChecksError.
    """
    return next((k.name for k in kinds if validator_of(k.schema).is_valid(content, budget)), None)
