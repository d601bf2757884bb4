"""What jobs of managers keep: everything decided when they were submitted.

A manager may be changed or deleted while its jobs wait; they go on as they were asked for.
"""

from typing import Any

from pydantic import BaseModel

from app.managers.memories import Kind, Rights
from app.managers.schemas import Apply, Strategy, Tidying


class PlannedPhase(BaseModel):
    """A further pass over the memories."""

    instructions: str
    include_messages: bool
    enable_inserts: bool
    enable_updates: bool
    enable_deletes: bool

    @property
    def rights(self) -> Rights:
        """What the model may do in this pass."""
        return Rights(self.enable_inserts, self.enable_updates, self.enable_deletes)


class Config(BaseModel):
    """A manager's configuration with every default filled in."""

    kinds: tuple[Kind, ...]
    instructions: str | None
    model: str | None  # None where no model is asked
    strategy: Strategy
    enable_inserts: bool
    enable_updates: bool
    enable_deletes: bool
    max_steps: int
    query_model: str | None
    query_limit: int
    default: dict[str, Any] | None
    phases: tuple[PlannedPhase, ...]
    apply: Apply
    max_change_share: float
    ttl_seconds: float | None

    @property
    def rights(self) -> Rights:
        """What the model may do."""
        return Rights(self.enable_inserts, self.enable_updates, self.enable_deletes)


class GivenMemory(BaseModel):
    """A memory that the request brought along; `kind` is None where no kind fits."""

    id: str
    kind: str | None
    content: dict[str, Any]


class ExtractPlan(BaseModel):
    """What a job of the kind `extract` does.

    `namespace` are labels relative to the key's root; None: nothing is stored. `learn_from` is
    the index of the first message to learn from; those before it are context.
    """

    config: Config
    manager: str | None
    manager_version: int | None
    namespace: list[str] | None
    messages: list[dict[str, Any]]
    existing: list[GivenMemory]
    thread_id: str | None
    position: int | None
    learn_from: int = 0


class ConsolidatePlan(BaseModel):
    """What a job of the kind `consolidate` does, at and below `namespace`."""

    config: Config
    manager: str | None
    manager_version: int | None
    namespace: list[str]
    strategy: Tidying
    everything: bool
    limit: int
