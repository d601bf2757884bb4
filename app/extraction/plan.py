"""Requests and plans of extractions: everything that is decided when a job is submitted.

A manager may be changed or deleted while its jobs wait; they run as they were submitted.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Self, TypeVar
from uuid import uuid4

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, PlainSerializer

from app.auth.access import Access, Verb
from app.background import TimeSlice
from app.conversations.fields import Id
from app.conversations.kinds import Kind, find_kind
from app.conversations.memories import Rights
from app.conversations.messages import (
    MAX_CONVERSATION_CHARACTERS,
    MAX_MESSAGES,
    ConversationMessage,
    SourceClass,
    StoredMessages,
    Turn,
    to_turns,
)
from app.conversations.namespace_template import Variables, fill_template
from app.conversations.prompt_text import render_text
from app.conversations.schema_assertions import MAX_CHECKS, Budget, TooManyChecksError
from app.errors import InvalidRequestError
from app.jobs.kind import JobPlan
from app.jobs.record import NewJob
from app.json_values import JsonObject, check_storable_text
from app.managers.schemas import (
    Apply,
    ManagerChoice,
    ManagerConfig,
    MemoryValue,
    Phase,
    Steps,
    Strategy,
)
from app.managers.service import EXTRACT_VERBS, ManagerService
from app.namespaces import to_stored
from app.providers.llm import LLMPool
from app.resources import Resources
from app.schemas import CONVERSATION, ItemLabels, Number, Schema
from app.store.schemas import MAX_INTEGER
from app.store.writer import check_not_reserved

_T = TypeVar("_T")

MAX_EXISTING = 1_000

_MAX_CHECKS = 5 * MAX_CHECKS
"""Budget for all memories in a request together."""

# PostgreSQL's jsonb does not keep the order of members, but models fill in schemas in that order:
# thoughts before the action that they lead to.
KindsAsText = Annotated[
    tuple[Kind, ...],
    BeforeValidator(lambda kinds: json.loads(kinds) if isinstance(kinds, str) else kinds),
    PlainSerializer(lambda kinds: json.dumps([asdict(kind) for kind in kinds]), return_type=str),
]


class PlannedPhase(BaseModel):
    """A further pass over the memories."""

    instructions: str
    include_messages: bool
    enable_inserts: bool
    enable_updates: bool
    enable_deletes: bool

    @classmethod
    def of(cls, phase: Phase) -> Self:
        """Return the phase with every default filled in."""
        return cls(
            instructions=phase.instructions,
            include_messages=bool(phase.include_messages),
            enable_inserts=_or(phase.enable_inserts, True),
            enable_updates=_or(phase.enable_updates, True),
            enable_deletes=_or(phase.enable_deletes, True),
        )

    @property
    def rights(self) -> Rights:
        """Edits that the model may propose in this pass."""
        return Rights(self.enable_inserts, self.enable_updates, self.enable_deletes)


class Config(BaseModel):
    """A manager's configuration with every default filled in."""

    kinds: KindsAsText
    instructions: str | None
    model: str | None  # None if no model is asked
    strategy: Strategy
    enable_inserts: bool
    enable_updates: bool
    enable_deletes: bool
    max_steps: int
    query_model: str | None
    query_limit: int | None  # None: by the length of the conversation
    questions: bool = False
    default: JsonObject | None
    phases: tuple[PlannedPhase, ...]
    apply: Apply
    review_sources: tuple[SourceClass, ...] = ()
    max_change_share: float
    ttl_seconds: float | None

    @classmethod
    def of(cls, config: ManagerConfig, *, deletes: bool) -> Self:
        """Return the configuration; `deletes` is the default of `enable_deletes`."""
        return cls(
            kinds=config.resolve_kinds(),
            instructions=config.instructions,
            model=config.model,
            strategy=config.strategy or "llm",
            enable_inserts=_or(config.enable_inserts, True),
            enable_updates=_or(config.enable_updates, True),
            enable_deletes=_or(config.enable_deletes, deletes),
            max_steps=_or(config.max_steps, 1),
            query_model=config.query_model,
            query_limit=config.query_limit,
            questions=_or(config.questions, True),
            default=config.default,
            phases=tuple(PlannedPhase.of(phase) for phase in config.phases or ()),
            apply=config.apply or "auto",
            review_sources=tuple(dict.fromkeys(config.review_sources or ())),
            max_change_share=_or(config.max_change_share, 0.5),
            ttl_seconds=config.ttl_seconds,
        )

    @property
    def rights(self) -> Rights:
        """Edits that the model may propose."""
        return Rights(self.enable_inserts, self.enable_updates, self.enable_deletes)

    @property
    def may_delete(self) -> bool:
        """True if a model may delete memories, including in a phase."""
        return self.enable_deletes or any(phase.enable_deletes for phase in self.phases)

    @property
    def singletons(self) -> frozenset[str]:
        """The names of the kinds of one document."""
        return frozenset(kind.name for kind in self.kinds if kind.singleton)

    def override(self, *, apply: Apply | None, max_steps: int | None = None) -> Self:
        """Return the configuration with the values that a request sets."""
        values = {"apply": apply, "max_steps": max_steps}
        return self.model_copy(update={name: value for name, value in values.items() if value})

    def require_models(self, llms: LLMPool) -> None:
        """Raise LLMNotConfiguredError if the configuration's models cannot be asked."""
        llms.require(self.model)
        if self.query_model is not None:
            llms.require(self.query_model)


class RequestMemory(BaseModel):
    """A memory sent with a request; `kind` is None if no kind fits."""

    id: str
    kind: str | None
    content: JsonObject


class ExtractPlan(JobPlan):
    """The plan of an extraction.

    `namespace` holds labels relative to the key's root; None: nothing is stored. The first
    `context_messages` messages only give context for the others.
    """

    job_kind = "extract"

    config: Config
    manager: str | None
    manager_version: int | None
    namespace: list[str] | None
    messages: StoredMessages
    existing: list[RequestMemory]
    thread_id: str | None
    position: int | None
    context_messages: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractCommand:
    """A conversation to extract memories from, with a stored manager or a configuration."""

    messages: Sequence[ConversationMessage]
    manager: str | None = None
    config: ManagerConfig | None = None
    namespace: list[str] | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    existing: Sequence[RequestMemory] | None = None
    thread_id: str | None = None
    position: int | None = None
    apply: Apply | None = None
    max_steps: int | None = None


class ExistingMemory(Schema):
    """An existing memory, sent with a request."""

    id: Id | None = Field(None, description="Absent: a new one.")
    kind: Annotated[str, Field(max_length=64), AfterValidator(check_storable_text)] | None = Field(
        None, description="Absent: the first of the kinds that allows the content."
    )
    content: MemoryValue = Field(description="Content, in the form of its kind.")

    def to_memory(self) -> RequestMemory:
        """Return the memory; one without an id gets a new one."""
        return RequestMemory(id=self.id or uuid4().hex, kind=self.kind, content=self.content)


class ExtractRequest(ManagerChoice):
    """A conversation to extract memories from."""

    body_limit = CONVERSATION

    namespace: ItemLabels | None = Field(
        None, description="Namespace of the memories, instead of the manager's."
    )
    variables: Variables | None = Field(
        None,
        description="Values of the variables of the manager's namespace.",
        examples=[{"user_id": "alice"}],
    )
    messages: list[ConversationMessage] = Field(
        min_length=1, max_length=MAX_MESSAGES, description="In the order of the conversation."
    )
    existing: Annotated[list[ExistingMemory], Field(max_length=MAX_EXISTING)] | None = Field(
        None, description="Existing memories, if no namespace keeps them."
    )
    thread_id: Id | None = Field(None, description="The conversation, for the memories' source.")
    position: Annotated[int, Field(ge=0, le=MAX_INTEGER - MAX_MESSAGES), Number] | None = Field(
        None,
        description="Position of the first message in its conversation; with thread_id, absent: 0.",
    )
    apply: Apply | None = Field(None, description="Instead of the manager's.")
    max_steps: Steps | None = Field(None, description="Instead of the manager's.")

    def to_command(self) -> ExtractCommand:
        """Return the command that the request gives."""
        return ExtractCommand(
            messages=self.messages,
            manager=self.manager,
            config=self.manager_config,
            namespace=self.namespace,
            variables=self.variables or {},
            existing=None if self.existing is None else [m.to_memory() for m in self.existing],
            thread_id=self.thread_id,
            position=self.position,
            apply=self.apply,
            max_steps=self.max_steps,
        )


class ExtractPlanner:
    """Plans extractions on behalf of a caller."""

    def __init__(self, managers: ManagerService, llms: LLMPool) -> None:
        self._managers = managers
        self._llms = llms

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Build the planner from a process's resources."""
        return cls(ManagerService.build(resources), resources.llms)

    async def plan_job(self, access: Access, command: ExtractCommand) -> NewJob:
        """Return the job that carries out a command.

        Raises the errors of `plan`, and InvalidRequestError if a model cannot read the messages.
        """
        time_slice = TimeSlice()
        plan, turns = await self._plan(access, command)
        await time_slice.give_way()
        if plan.config.strategy == "llm":
            _check_length(turns)
        stored = None if plan.namespace is None else to_stored(plan.namespace, access.root)
        return plan.new_job(
            access.root if stored is None else stored,
            concurrency_key=stored,
            manager=plan.manager,
            thread_id=plan.thread_id,
        )

    async def plan(self, access: Access, command: ExtractCommand) -> ExtractPlan:
        """Return the plan of an extraction.

        Raises ManagerNotFoundError, MissingVariableError, UnknownVariableError,
        InvalidMessageError, InvalidRequestError, ForbiddenError and LLMNotConfiguredError.
        """
        return (await self._plan(access, command))[0]

    async def _plan(
        self, access: Access, command: ExtractCommand
    ) -> tuple[ExtractPlan, Sequence[Turn]]:
        alternatives: tuple[frozenset[Verb], ...] = (EXTRACT_VERBS,)
        if command.namespace is not None:
            # Before the manager is looked up, so that the answer does not reveal managers.
            _check_verbs(access, command.namespace)
            alternatives = ()
        chosen = await self._managers.choose(access, command.manager, command.config, alternatives)
        config = Config.of(chosen.config, deletes=False)
        config = config.override(apply=command.apply, max_steps=command.max_steps)
        namespace = _find_namespace(chosen.config, command)
        turns = to_turns(command.messages)
        _check_state(config, namespace, command)
        _check_rights(access, config, namespace)
        existing = list(command.existing or ())
        if existing:
            existing = await asyncio.to_thread(_with_kinds, existing, config.kinds)
        if config.strategy == "llm":
            config.require_models(self._llms)
        is_first = command.position is None and command.thread_id is not None
        plan = ExtractPlan(
            config=config,
            manager=chosen.name,
            manager_version=chosen.version,
            namespace=namespace,
            messages=list(command.messages),
            existing=existing,
            thread_id=command.thread_id,
            position=0 if is_first else command.position,
        )
        return plan, turns


async def plan_extract(resources: Resources, access: Access, body: ExtractRequest) -> NewJob:
    """Return the job for a request; raises as `ExtractPlanner.plan_job`."""
    return await ExtractPlanner.build(resources).plan_job(access, body.to_command())


def _find_namespace(config: ManagerConfig, command: ExtractCommand) -> list[str] | None:
    """Return the labels of the namespace that keeps the memories; None: nothing is stored."""
    labels = command.namespace
    template = config.namespace or [] if labels is None else []
    # Variables of a namespace that has none are an error.
    filled = fill_template(template, command.variables) if template or command.variables else []
    labels = filled if labels is None else labels
    check_not_reserved(labels)
    return labels or None


def _check_state(config: Config, namespace: list[str] | None, command: ExtractCommand) -> None:
    """Raise InvalidRequestError unless namespace, existing memories, and strategy fit together."""
    if namespace is not None and command.existing is not None:
        raise InvalidRequestError(
            "existing is given, but the namespace has the existing memories; leave existing out, "
            "or send no namespace.",
            field="existing",
        )
    if namespace is None and config.strategy == "verbatim":
        raise InvalidRequestError(
            "The strategy verbatim only stores messages, and no namespace says where; send one.",
            field="namespace",
        )


def _check_length(turns: Sequence[Turn]) -> None:
    """Raise InvalidRequestError if no model could read the messages at once."""
    characters = sum(len(render_text(turn)) for turn in turns)
    if characters > MAX_CONVERSATION_CHARACTERS:
        raise InvalidRequestError(
            f"The messages have {characters:,} characters; one job extracts from at most "
            f"{MAX_CONVERSATION_CHARACTERS:,}. Append them to a thread, which is extracted from in "
            "portions: POST /v1/threads/{id}/messages.",
            field="messages",
        )


def _check_rights(access: Access, config: Config, namespace: list[str] | None) -> None:
    """Raise ForbiddenError unless the caller may do everything that the job may do."""
    if namespace is None:
        access.authorize([], Verb.JOBS)
    else:
        _check_verbs(access, namespace)
        if config.may_delete and config.strategy == "llm":
            access.authorize(namespace, Verb.DELETE)


def _check_verbs(access: Access, namespace: list[str]) -> None:
    """Raise ForbiddenError unless the caller may extract memories into a namespace."""
    for verb in (Verb.JOBS, Verb.READ, Verb.WRITE):
        access.authorize(namespace, verb)


def _with_kinds(existing: Sequence[RequestMemory], kinds: Sequence[Kind]) -> list[RequestMemory]:
    """Return the memories of a request, each with its kind, if one fits.

    Raises InvalidRequestError for an id that is used twice, and if finding the kinds takes too
    much work. May take a second for a thousand memories: call it in a thread.
    """
    budget = Budget(_MAX_CHECKS)
    seen: set[str] = set()
    complete = []
    for index, memory in enumerate(existing):
        complete.append(_with_kind(memory, kinds, budget))
        if memory.id in seen:
            raise InvalidRequestError(
                f'existing[{index}].id is "{memory.id}", as an earlier memory\'s is; '
                "give every memory an id of its own, or none.",
                field=f"existing[{index}].id",
            )
        seen.add(memory.id)
    return complete


def _with_kind(memory: RequestMemory, kinds: Sequence[Kind], budget: Budget) -> RequestMemory:
    try:
        kind = memory.kind or find_kind(memory.content, kinds, budget)
    except TooManyChecksError as error:
        detail = f"existing {error}, or give the memories their kind."
        raise InvalidRequestError(detail, field="existing") from error
    return memory.model_copy(update={"kind": kind})


def _or(value: _T | None, default: _T) -> _T:
    return default if value is None else value
