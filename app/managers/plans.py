"""What jobs of managers keep: everything decided when they were submitted.

A manager may be changed or deleted while its jobs wait; they go on as they were asked for.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any, Self, TypeVar
from uuid import uuid4

from pydantic import BaseModel, BeforeValidator, PlainSerializer

from app.conversations.json_schema.budget import MAX_CHECKS, Budget, TooManyChecksError
from app.conversations.kinds import kind_of
from app.conversations.types import Kind, Rights
from app.errors import InvalidRequestError
from app.jobs.kind import JobPlan
from app.managers.schemas import (
    Apply,
    ExistingMemory,
    ManagerConfig,
    Phase,
    Strategy,
    Tidying,
)

_T = TypeVar("_T")

_MAX_CHECKS = 5 * MAX_CHECKS
"""Budget for all memories in a request together."""

# PostgreSQL's jsonb does not keep the order of members, but models fill schemas in in that order:
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
        """Fill in what the client left open."""
        return cls(
            instructions=phase.instructions,
            include_messages=bool(phase.include_messages),
            enable_inserts=_or(phase.enable_inserts, True),
            enable_updates=_or(phase.enable_updates, True),
            enable_deletes=_or(phase.enable_deletes, True),
        )

    @property
    def rights(self) -> Rights:
        """What the model may do in this pass."""
        return Rights(self.enable_inserts, self.enable_updates, self.enable_deletes)


class Config(BaseModel):
    """A manager's configuration with every default filled in."""

    kinds: KindsAsText
    instructions: str | None
    model: str | None  # None where no model is asked
    strategy: Strategy
    enable_inserts: bool
    enable_updates: bool
    enable_deletes: bool
    max_steps: int
    query_model: str | None
    query_limit: int | None  # None: by the length of the conversation
    default: dict[str, Any] | None
    phases: tuple[PlannedPhase, ...]
    apply: Apply
    max_change_share: float
    ttl_seconds: float | None

    @classmethod
    def of(cls, config: ManagerConfig, *, deletes: bool) -> Self:
        """Fill in what the client left open; `deletes` is the default of `enable_deletes`."""
        return cls(
            kinds=config.kinds_in_full(),
            instructions=config.instructions,
            model=config.model,
            strategy=config.strategy or "llm",
            enable_inserts=_or(config.enable_inserts, True),
            enable_updates=_or(config.enable_updates, True),
            enable_deletes=_or(config.enable_deletes, deletes),
            max_steps=_or(config.max_steps, 1),
            query_model=config.query_model,
            query_limit=config.query_limit,
            default=config.default,
            phases=tuple(PlannedPhase.of(phase) for phase in config.phases or ()),
            apply=config.apply or "auto",
            max_change_share=_or(config.max_change_share, 0.5),
            ttl_seconds=config.ttl_seconds,
        )

    @property
    def rights(self) -> Rights:
        """What the model may do."""
        return Rights(self.enable_inserts, self.enable_updates, self.enable_deletes)

    @property
    def may_delete(self) -> bool:
        """Whether a model may delete memories, be it in a phase."""
        return self.enable_deletes or any(phase.enable_deletes for phase in self.phases)


class GivenMemory(BaseModel):
    """A memory that the request brought along; `kind` is None where no kind fits."""

    id: str
    kind: str | None
    content: dict[str, Any]


class ExtractPlan(JobPlan):
    """What a job of the kind `extract` does.

    `namespace` are labels relative to the key's root; None: nothing is stored. `learn_from` is
    the index of the first message to learn from; those before it are context.
    """

    job_kind = "extract"

    config: Config
    manager: str | None
    manager_version: int | None
    namespace: list[str] | None
    messages: list[dict[str, Any]]
    existing: list[GivenMemory]
    thread_id: str | None
    position: int | None
    learn_from: int = 0


class ConsolidatePlan(JobPlan):
    """What a job of the kind `consolidate` does, at and below `namespace`.

    `everything_from` is the job that this one goes on for, where that looked at everything.
    """

    job_kind = "consolidate"

    config: Config
    manager: str | None
    manager_version: int | None
    namespace: list[str]
    strategy: Tidying
    everything: bool
    limit: int
    everything_from: str | None = None


def given_memories(existing: Sequence[ExistingMemory], kinds: Sequence[Kind]) -> list[GivenMemory]:
    """Return the memories of a request, each with an id and, where one fits, a kind.

    Raises InvalidRequestError for an id that is given twice, and if finding the kinds takes too
    much work. May take a second for a thousand memories: call it in a thread.
    """
    budget = Budget(_MAX_CHECKS)
    given = [_given(memory, kinds, budget) for memory in existing]
    seen: set[str] = set()
    for index, memory in enumerate(given):
        if memory.id in seen:
            raise InvalidRequestError(
                f'existing[{index}].id is "{memory.id}", as an earlier memory\'s is; '
                "give every memory an id of its own, or none.",
                field=f"existing[{index}].id",
            )
        seen.add(memory.id)
    return given


def _given(memory: ExistingMemory, kinds: Sequence[Kind], budget: Budget) -> GivenMemory:
    try:
        kind = memory.kind or kind_of(memory.content, kinds, budget)
    except TooManyChecksError as error:
        detail = f"existing {error}, or give the memories their kind."
        raise InvalidRequestError(detail, field="existing") from error
    return GivenMemory(id=memory.id or uuid4().hex, kind=kind, content=memory.content)


def _or(given: _T | None, default: _T) -> _T:
    return default if given is None else given
