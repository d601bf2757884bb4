"""Bodies of the routes of managers, and of the jobs that managers describe."""

from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from app.body_limits import CONFIGURATION, CONVERSATION
from app.conversations.json_fields import (
    matching,
    text_or_blocks,
    unwrapped,
)
from app.conversations.json_schema.budget import TooManyChecksError
from app.conversations.json_schema.subset import check_object_schema, check_together, validator_of
from app.conversations.kinds import (
    BUILT_IN,
    DEFAULT,
    check_built_in,
    check_kind_name,
    check_names_differ,
)
from app.conversations.namespace_template import check_template
from app.conversations.types import Kind
from app.json_values import check_storable, check_storable_text
from app.namespaces import MAX_DEPTH
from app.schemas import (
    CLEAN,
    Clean,
    Flag,
    ItemLabels,
    Labels,
    Moment,
    Number,
    Real,
    Schema,
    StorableObject,
)
from app.store.schemas import MAX_INTEGER, Seconds

MAX_KINDS = 20
MAX_PHASES = 10
MAX_STEPS = 10
MAX_MESSAGES = 2_000
MAX_EXISTING = 1_000
MAX_VARIABLES = 50
MAX_QUERY_LIMIT = 100
MAX_CONSOLIDATED = 1_000
MAX_INSTRUCTIONS_CHARACTERS = 50_000
MAX_ID_CHARACTERS = 512
MAX_BLOCKS = 1_000
MAX_TOOL_CALLS = 256
MAX_VARIABLE_CHARACTERS = 1_024
MAX_TEMPLATE_CHARACTERS = 1_024
MAX_CHARACTERS = 400_000
"""Maximum length of a job's conversation: about 100,000 tokens, which most models can read."""

MANAGER_NAME = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$"
KIND_NAME = r"^[A-Za-z][A-Za-z0-9_-]{0,55}$"
"""So that the name of its tool, `insert_<kind>`, has at most 64 characters, as providers ask."""
MODEL_NAME = r"^(anthropic|openai):[^\s\x00-\x1f\x7f]{1,200}$"

Strategy: TypeAlias = Literal["llm", "verbatim"]
Tidying: TypeAlias = Literal["llm", "duplicates"]
Apply: TypeAlias = Literal["auto", "review"]


ManagerName = Annotated[
    str,
    Field(json_schema_extra={"pattern": MANAGER_NAME}, examples=["user-memories"]),
    matching(
        MANAGER_NAME, 'a name of 1 to 128 letters, digits, ".", "_" and "-", beginning with no dot'
    ),
]
ModelName = Annotated[
    str,
    Field(
        json_schema_extra={"pattern": MODEL_NAME},
        description="`anthropic:MODEL` or `openai:MODEL`; absent: the server's MEMORYD_LLM.",
        examples=["anthropic:claude-sonnet-5-5"],
    ),
    matching(MODEL_NAME, "anthropic:MODEL or openai:MODEL; put the provider before the model"),
]
Instructions = Annotated[
    str,
    Field(max_length=MAX_INSTRUCTIONS_CHARACTERS, json_schema_extra=CLEAN),
    AfterValidator(check_storable_text),
]
Id = Annotated[
    str,
    Field(min_length=1, max_length=MAX_ID_CHARACTERS, json_schema_extra=CLEAN),
    AfterValidator(check_storable_text),
]
MemoryValue = Annotated[StorableObject, Field(title="Value")]
ObjectSchema = Annotated[
    StorableObject,
    Field(title="ObjectSchema", description="A JSON Schema (draft 2020-12) of an object."),
    AfterValidator(check_object_schema),
]
TemplateLabel = Annotated[str, Field(max_length=MAX_TEMPLATE_CHARACTERS)]
VariableName = Annotated[str, Field(max_length=64), WithJsonSchema({"type": "string"})]
"""The OpenAPI document leaves the length out, because generators do not know `propertyNames`."""
Variables = Annotated[
    dict[VariableName, Annotated[str, Field(max_length=MAX_VARIABLE_CHARACTERS)]],
    Field(max_length=MAX_VARIABLES, title="Variables"),
]
"""Values of a namespace template's variables."""
Steps = Annotated[int, Field(ge=1, le=MAX_STEPS), Number]
BuiltInKind = Annotated[
    str,
    Field(title="BuiltInKind", json_schema_extra={"enum": list(BUILT_IN)}),
    AfterValidator(check_built_in),
]


class MemoryKind(Schema):
    """A kind of memory: a built-in one by its name, or one of your own with its JSON Schema."""

    name: Annotated[
        str,
        Field(json_schema_extra={"pattern": KIND_NAME}),
        matching(KIND_NAME, 'a name of up to 56 letters, digits, "_" and "-", a letter first'),
        AfterValidator(check_kind_name),
    ] = Field(
        description="What memories of the kind are marked with. Without a schema it is a built-in "
        f"kind: {', '.join(BUILT_IN)}.",
        examples=["profile"],
    )
    description: Instructions | None = Field(
        None, description="Tells the model what the kind is for; absent: the schema's description."
    )
    json_schema: ObjectSchema | None = Field(
        None,
        alias="schema",
        description="A JSON Schema (draft 2020-12) of an object; absent: that of the built-in kind "
        "of this name.",
    )
    singleton: Flag | None = Field(
        None,
        description="true: one document of this kind is kept and updated, such as a profile; "
        "absent: false, or the built-in kind's own.",
    )

    @model_validator(mode="after")
    def _has_a_schema(self) -> Self:
        if self.json_schema is None:
            check_built_in(self.name)
        return self

    def as_kind(self) -> Kind:
        """Return what the rest of the program takes."""
        if self.json_schema is None:
            built_in = BUILT_IN[self.name]
            singleton = built_in.singleton if self.singleton is None else self.singleton
            described = self.description or built_in.description
            return replace(built_in, description=described, singleton=singleton)
        described = self.description or self.json_schema.get("description") or ""
        return Kind(self.name, described, self.json_schema, bool(self.singleton))


class Phase(Schema):
    """A further pass over the memories, with instructions of its own."""

    instructions: Instructions = Field(description="What this pass is to do.")
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
        description="Where memories are kept; `{variable}` anywhere in a label is filled in with "
        "the request's variables. Absent: nowhere, a job returns them.",
        examples=[["users", "{user_id}", "memories"]],
    )
    kinds: Annotated[list[MemoryKind], Field(min_length=1, max_length=MAX_KINDS)] | None = Field(
        None,
        description="Built-in kinds (memory, profile, episode, triple) by name, or kinds of your "
        'own; absent: [{"name": "memory"}].',
        examples=[[{"name": "memory"}, {"name": "profile"}]],
    )
    instructions: Instructions | None = Field(
        None, description="What to remember, what not, and how; added to memoryd's own."
    )
    model: ModelName | None = Field(
        None, description="`anthropic:MODEL` or `openai:MODEL`; absent: the server's MEMORYD_LLM."
    )
    strategy: Strategy | None = Field(
        None,
        description="llm (default): a model extracts memories; verbatim: the messages themselves "
        "become items, without a model.",
    )
    enable_inserts: Flag | None = Field(None, description="Absent: true.")
    enable_updates: Flag | None = Field(None, description="Absent: true.")
    enable_deletes: Flag | None = Field(
        None, description="Absent: false, but true where memories are consolidated."
    )
    max_steps: Steps | None = Field(
        None, description="How often the model may look at its own changes and go on; absent: 1."
    )
    query_model: ModelName | None = Field(
        None,
        description="Writes the searches for existing memories; absent: the messages themselves "
        "are searched with.",
    )
    query_limit: Annotated[int, Field(ge=0, le=MAX_QUERY_LIMIT), Number] | None = Field(
        None,
        description="How many existing memories the model is shown; absent: 10, of long "
        "conversations up to 50.",
    )
    default: MemoryValue | None = Field(
        None,
        description="Content of the first kind, written under the key `default` when there is no "
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
    max_change_share: Annotated[Real, Field(ge=0, le=1)] | None = Field(
        None,
        description="A job that would delete or rewrite more than this share of what it looked at "
        "waits for a review; absent: 0.5.",
    )
    ttl_seconds: Seconds | None = Field(
        None, description="Lifetime of what is written; absent: the server's default."
    )

    @field_validator("kinds", mode="before")
    @classmethod
    def _schemas_are_small(cls, kinds: object) -> object:
        if isinstance(kinds, list):
            check_together(kind.get("schema") for kind in kinds if isinstance(kind, dict))
        return kinds

    @field_validator("kinds")
    @classmethod
    def _names_differ(cls, kinds: list[MemoryKind] | None) -> list[MemoryKind] | None:
        check_names_differ(kind.name for kind in kinds or ())
        return kinds

    @field_validator("default")
    @classmethod
    def _fits_the_first_kind(
        cls, default: dict[str, Any] | None, info: ValidationInfo
    ) -> dict[str, Any] | None:
        if default is not None and "kinds" in info.data:
            first = _in_full(info.data["kinds"])[0]
            try:
                faults = validator_of(first.schema).faults(default)
            except TooManyChecksError as error:
                raise ValueError(str(error)) from error
            for fault in faults:
                place = f"{fault.place.removeprefix('.')} " if fault.place else ""
                raise ValueError(f'does not fit the kind "{first.name}": {place}{fault.message}')
        return default

    def kinds_in_full(self) -> tuple[Kind, ...]:
        """Return the kinds with their schemas."""
        return _in_full(self.kinds)


def _in_full(kinds: list[MemoryKind] | None) -> tuple[Kind, ...]:
    return DEFAULT if kinds is None else tuple(kind.as_kind() for kind in kinds)


class Manager(BaseModel):
    """A stored manager: its configuration as it was sent, and what memoryd adds."""

    name: str = Field(description="What requests call it.")
    config: ManagerConfig = Field(description="As it was sent.")
    version: int = Field(description="1 at first, one more with every change.")
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


def _bounded(content: object) -> object:
    content = text_or_blocks(content)
    if isinstance(content, str) and len(content) > MAX_CHARACTERS:
        raise ValueError(f"has {len(content):,} characters; send at most {MAX_CHARACTERS:,}")
    if isinstance(content, list) and len(content) > MAX_BLOCKS:
        raise ValueError(f"has {len(content):,} blocks; send at most {MAX_BLOCKS:,}")
    return content


_OWN = ("role", "type", "content", "tool_calls")


class ConversationMessage(BaseModel):
    """A message of a conversation, as OpenAI, Anthropic or LangChain have it.

    Further members are kept. A list such as ["user", "Hello"] stands for role and content.
    """

    model_config = ConfigDict(extra="allow")

    id: Id | None = Field(None, description="Absent: the message's number, counted from 1.")
    role: Annotated[str, Field(max_length=64)] | None = Field(
        None, description="user, assistant, system, developer or tool; type may stand in for it."
    )
    type: Annotated[str, Field(max_length=64)] | None = Field(
        None, description="human, ai, system or tool, as LangChain has it."
    )
    # No type in the OpenAPI document: few languages can express "text or a list".
    content: Annotated[Any, BeforeValidator(_bounded)] = Field(
        None,
        description="Text, or a list of blocks: text, tool_use, tool_result, image and others.",
        examples=["I love ramen.", [{"type": "text", "text": "I love ramen."}]],
    )
    name: Annotated[Clean, Field(max_length=256)] | None = Field(
        None, description="Who speaks, where the role does not say it."
    )
    created_at: Moment | None = Field(None, description="When it was said.")
    tool_calls: Annotated[list[dict[str, Any]], Field(max_length=MAX_TOOL_CALLS)] | None = Field(
        None, description="As OpenAI or LangChain have them."
    )

    @model_validator(mode="before")
    @classmethod
    def _unwrap(cls, message: object) -> object:
        return unwrapped(message)

    @model_validator(mode="after")
    def _can_be_stored(self) -> Self:
        # Makes no copy, and skips the fields whose types are checked already.
        own = (self.role, self.type, self.content, self.tool_calls)
        check_storable({**(self.model_extra or {}), **dict(zip(_OWN, own, strict=True))}, "$")
        return self

    def members(self) -> dict[str, Any]:
        """Return the message as it is stored."""
        return self.model_dump(mode="json", exclude_unset=True)


class ExistingMemory(Schema):
    """A memory that a request brings along."""

    id: Id | None = Field(None, description="Absent: one is made up.")
    kind: Annotated[str, Field(max_length=64), AfterValidator(check_storable_text)] | None = Field(
        None, description="Absent: the first of the kinds that allows the content."
    )
    content: MemoryValue = Field(description="What it says, as its kind has it.")


class ManagerChoice(Schema):
    """The manager to use: a stored one, by name, or a configuration in the request."""

    manager: ManagerName | None = Field(
        None, description="Name of a stored manager; absent: manager_config, or every default."
    )
    manager_config: ManagerConfig | None = Field(
        None, description="A configuration for this request alone, instead of a stored manager."
    )

    @model_validator(mode="after")
    def _is_one_manager(self) -> Self:
        if self.manager is not None and self.manager_config is not None:
            raise ValueError("manager and manager_config are both given; send one of them")
        return self


class ExtractRequest(ManagerChoice):
    """A conversation to learn from."""

    body_limit = CONVERSATION

    namespace: ItemLabels | None = Field(
        None, description="Where the memories are kept, instead of the manager's namespace."
    )
    variables: Variables | None = Field(
        None,
        description="What the variables of the manager's namespace stand for.",
        examples=[{"user_id": "alice"}],
    )
    messages: list[ConversationMessage] = Field(
        min_length=1, max_length=MAX_MESSAGES, description="In the order they were said."
    )
    existing: Annotated[list[ExistingMemory], Field(max_length=MAX_EXISTING)] | None = Field(
        None, description="What is known already, where no namespace keeps it."
    )
    thread_id: Id | None = Field(None, description="The conversation, for the memories' source.")
    position: Annotated[int, Field(ge=0, le=MAX_INTEGER - MAX_MESSAGES), Number] | None = Field(
        None,
        description="Place of the first message in the conversation; absent: 0, with a thread_id.",
    )
    apply: Apply | None = Field(None, description="Instead of the manager's.")
    max_steps: Steps | None = Field(None, description="Instead of the manager's.")


class ConsolidateRequest(ManagerChoice):
    """Memories to tidy up."""

    body_limit = CONFIGURATION

    namespace: Labels = Field(description="Tidy up at and below this namespace.")
    strategy: Tidying | None = Field(
        None,
        description="llm: a model merges, corrects and drops; duplicates: equal and nearly equal "
        "memories are merged without one. Absent: llm, for a verbatim manager duplicates.",
    )
    everything: Flag | None = Field(
        None, description="true: also what has not changed since the last time."
    )
    limit: Annotated[int, Field(ge=1, le=MAX_CONSOLIDATED), Number] | None = Field(
        None, description="Look at no more than this many memories; absent: 200."
    )
    apply: Apply | None = Field(None, description="Instead of the manager's.")
