"""Bodies of the routes of managers."""

from datetime import datetime
from typing import Annotated, Literal, Self, TypeAlias

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from app.conversations.fields import Instructions, ModelName, match_pattern
from app.conversations.kinds import DEFAULT, Kind, MemoryKind, check_distinct_names
from app.conversations.messages import SourceClass
from app.conversations.namespace_template import TemplateLabel, check_template
from app.conversations.schema_assertions import TooManyChecksError
from app.conversations.schema_validator import check_together, validator_of
from app.json_values import JsonObject
from app.managers import repository
from app.namespaces import MAX_DEPTH
from app.schemas import CONFIGURATION, Flag, Number, Real, Schema, StorableObject
from app.store.schemas import Seconds

MAX_KINDS = 20
MAX_PHASES = 10
MAX_STEPS = 10
MAX_QUERY_LIMIT = 100
DEFAULT_PAGE = 100

MANAGER_NAME = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$"

Strategy: TypeAlias = Literal["llm", "verbatim"]
Apply: TypeAlias = Literal["auto", "review"]


ManagerName = Annotated[
    str,
    Field(json_schema_extra={"pattern": MANAGER_NAME}, examples=["user-memories"]),
    match_pattern(
        MANAGER_NAME, 'a name of 1 to 128 letters, digits, ".", "_" and "-", beginning with no dot'
    ),
]
MemoryValue = Annotated[StorableObject, Field(title="Value")]
Steps = Annotated[int, Field(ge=1, le=MAX_STEPS), Number]


class Phase(Schema):
    """A further pass over the memories, with instructions of its own."""

    instructions: Instructions = Field(description="Instructions for this pass.")
    include_messages: Flag | None = Field(
        None, description="Show the model the conversation again; absent: false."
    )
    enable_inserts: Flag | None = Field(None, description="Absent: true.")
    enable_updates: Flag | None = Field(None, description="Absent: true.")
    enable_deletes: Flag | None = Field(None, description="Absent: true.")


class ManagerConfig(Schema):
    """How conversations become memories."""

    body_limit = CONFIGURATION

    namespace: (
        Annotated[
            list[TemplateLabel],
            AfterValidator(check_template),
            Field(min_length=1, max_length=MAX_DEPTH),
        ]
        | None
    ) = Field(
        None,
        description="Namespace of the memories; `{variable}` in a label is replaced by the "
        "request's variable. Absent: memories are not stored, the job returns them.",
        examples=[["users", "{user_id}", "memories"]],
    )
    kinds: Annotated[list[MemoryKind], Field(min_length=1, max_length=MAX_KINDS)] | None = Field(
        None,
        description="Built-in kinds (memory, profile, episode, triple) by name, or kinds of your "
        'own; absent: [{"name": "memory"}].',
        examples=[[{"name": "memory"}, {"name": "profile"}]],
    )
    instructions: Instructions | None = Field(
        None, description="Which things to remember, and how; added to memoryd's own instructions."
    )
    model: ModelName | None = Field(
        None,
        description="`PROVIDER:MODEL`, such as `openai:MODEL`; absent: the server's MEMORYD_LLM.",
    )
    strategy: Strategy | None = Field(
        None,
        description="llm (default): a model extracts memories; verbatim: the messages themselves "
        "become items, without a model.",
    )
    enable_inserts: Flag | None = Field(None, description="Absent: true.")
    enable_updates: Flag | None = Field(None, description="Absent: true.")
    enable_deletes: Flag | None = Field(None, description="Absent: false; true for consolidations.")
    max_steps: Steps | None = Field(
        None,
        description="Maximum steps; after each, the model sees its own changes. Absent: 1.",
    )
    query_model: ModelName | None = Field(
        None,
        description="Writes the queries for existing memories if not all of them fit; absent: the "
        "messages themselves are the queries.",
    )
    query_limit: Annotated[int, Field(ge=0, le=MAX_QUERY_LIMIT), Number] | None = Field(
        None,
        description="Maximum existing memories shown to the model; absent: all that fit into "
        "32 KiB, or else 10, for long conversations up to 100.",
    )
    questions: Flag | None = Field(
        None,
        description="The model also writes two or three questions that each memory answers; they "
        "are indexed with it and never returned. false: it does not. Absent: true.",
    )
    default: MemoryValue | None = Field(
        None,
        description="Content of the first kind, written under the key `default` if there is no "
        "memory yet.",
    )
    phases: Annotated[list[Phase], Field(max_length=MAX_PHASES)] | None = Field(
        None, description="Further passes over the memories, one after another."
    )
    apply: Apply | None = Field(
        None,
        description="auto (default): changes are applied at once; review: they wait for "
        "POST /v1/jobs/{id}/apply.",
    )
    review_sources: Annotated[list[SourceClass], Field(max_length=10)] | None = Field(
        None,
        description="Memories from these kinds of sources wait for a review; absent: none.",
        examples=[["tool", "document", "import"]],
    )
    max_change_share: Annotated[Real, Field(ge=0, le=1)] | None = Field(
        None,
        description="A job that would delete or rewrite more than this share of the memories it "
        "compared waits for a review; absent: 0.5.",
    )
    ttl_seconds: Seconds | None = Field(
        None, description="Lifetime of written memories; absent: the server's default."
    )

    @field_validator("kinds", mode="before")
    @classmethod
    def _check_schemas(cls, kinds: object) -> object:
        if isinstance(kinds, list):
            check_together(kind.get("schema") for kind in kinds if isinstance(kind, dict))
        return kinds

    @field_validator("kinds")
    @classmethod
    def _check_names(cls, kinds: list[MemoryKind] | None) -> list[MemoryKind] | None:
        check_distinct_names(kind.name for kind in kinds or ())
        return kinds

    @field_validator("default")
    @classmethod
    def _check_default(cls, default: JsonObject | None, info: ValidationInfo) -> JsonObject | None:
        if default is not None and "kinds" in info.data:
            first = _resolve_kinds(info.data["kinds"])[0]
            try:
                faults = validator_of(first.schema).faults(default)
            except TooManyChecksError as error:
                raise ValueError(str(error)) from error
            for fault in faults:
                place = f"{fault.place.removeprefix('.')} " if fault.place else ""
                raise ValueError(f'does not fit the kind "{first.name}": {place}{fault.message}')
        return default

    def resolve_kinds(self) -> tuple[Kind, ...]:
        """Return the kinds with their schemas."""
        return _resolve_kinds(self.kinds)


def _resolve_kinds(kinds: list[MemoryKind] | None) -> tuple[Kind, ...]:
    return DEFAULT if kinds is None else tuple(kind.to_kind() for kind in kinds)


class Manager(BaseModel):
    """A stored manager: its configuration as it was sent, with version and times."""

    name: str = Field(description="Name of the manager.")
    config: ManagerConfig = Field(description="As it was sent.")
    version: int = Field(description="1 for a new manager, incremented with every change.")
    created_at: datetime = Field(description="When it was first stored.")
    updated_at: datetime = Field(description="When it was last changed.")


class ManagerList(BaseModel):
    """A page of managers, by name."""

    managers: list[Manager] = Field(description="In the order of their names.")
    next_cursor: str | None = Field(description="Send it as cursor for the next page; null: last.")


class ListManagers(Schema):
    """Which managers to list."""

    limit: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        None, description="At most this many; absent: 100."
    )
    cursor: Annotated[str, Field(pattern=MANAGER_NAME)] | None = Field(
        None, description="next_cursor of the page before."
    )


class ManagerChoice(Schema):
    """The manager to use: a stored one, by name, or a configuration in the request."""

    manager: ManagerName | None = Field(
        None, description="Name of a stored manager; absent: manager_config, or every default."
    )
    manager_config: ManagerConfig | None = Field(
        None, description="A configuration for this request alone, instead of a stored manager."
    )

    @model_validator(mode="before")
    @classmethod
    def _move_configuration(cls, members: object) -> object:
        """Older clients send the configuration as `manager`."""
        if not isinstance(members, dict) or not isinstance(members.get("manager"), dict):
            return members
        if members.get("manager_config") is not None:
            raise ValueError(
                "manager is a configuration, and manager_config is given too; send one of them"
            )
        rest = {name: part for name, part in members.items() if name != "manager"}
        return {**rest, "manager_config": members["manager"]}

    @model_validator(mode="after")
    def _check_choice(self) -> Self:
        if self.manager is not None and self.manager_config is not None:
            raise ValueError("manager and manager_config are both given; send one of them")
        return self


def encode_manager(manager: repository.Manager) -> JsonObject:
    """Return a manager as JSON; its configuration, which may be long, is passed on as text."""
    return {
        "name": manager.name,
        "config": orjson.Fragment(manager.config),
        "version": manager.version,
        "created_at": manager.created_at,
        "updated_at": manager.updated_at,
    }
