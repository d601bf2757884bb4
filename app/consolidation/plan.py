"""Requests and plans of consolidations: everything that is decided when a job is submitted."""

from dataclasses import dataclass
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field

from app.auth.access import Access, Verb
from app.extraction.plan import Config
from app.jobs.kind import JobPlan
from app.jobs.record import NewJob
from app.managers.schemas import Apply, ManagerChoice, ManagerConfig
from app.managers.service import ManagerService
from app.providers.llm import LLMPool
from app.resources import Resources
from app.schemas import CONFIGURATION, Flag, Labels, Number

DEFAULT_LIMIT = 200
MAX_CONSOLIDATED = 1_000

Strategy: TypeAlias = Literal["llm", "duplicates"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsolidateCommand:
    """Memories to consolidate, with a stored manager or a configuration."""

    namespace: list[str]
    manager: str | None = None
    config: ManagerConfig | None = None
    strategy: Strategy | None = None
    full: bool = False
    limit: int = DEFAULT_LIMIT
    apply: Apply | None = None


class ConsolidateRequest(ManagerChoice):
    """Memories to consolidate."""

    body_limit = CONFIGURATION

    namespace: Labels = Field(description="Consolidate memories at and below this namespace.")
    strategy: Strategy | None = Field(
        None,
        description="llm: a model merges, corrects, and deletes memories; duplicates: exact and "
        "near duplicates are merged without one. Absent: llm, or duplicates for a verbatim "
        "manager.",
    )
    full: Flag | None = Field(
        None, description="true: compare memories without changes since the last run, too."
    )
    limit: Annotated[int, Field(ge=1, le=MAX_CONSOLIDATED), Number] | None = Field(
        None, description="Maximum number of changed memories to compare; absent: 200."
    )
    apply: Apply | None = Field(None, description="Instead of the manager's.")

    def to_command(self) -> ConsolidateCommand:
        """Return the command."""
        return ConsolidateCommand(
            namespace=self.namespace,
            manager=self.manager,
            config=self.manager_config,
            strategy=self.strategy,
            full=bool(self.full),
            limit=self.limit or DEFAULT_LIMIT,
            apply=self.apply,
        )


class ConsolidatePlan(JobPlan):
    """The plan of a consolidation at and below `namespace`.

    A `full` run also compares memories without changes. `full_from` is the full run that this job
    continues.
    """

    job_kind = "consolidate"

    config: Config
    manager: str | None
    manager_version: int | None
    namespace: list[str]
    strategy: Strategy
    full: bool
    limit: int
    full_from: str | None = None


class ConsolidatePlanner:
    """Plans consolidations on behalf of a caller."""

    def __init__(self, managers: ManagerService, llms: LLMPool) -> None:
        self._managers = managers
        self._llms = llms

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Build the planner from a process's resources."""
        return cls(ManagerService.build(resources), resources.llms)

    async def plan_job(self, access: Access, command: ConsolidateCommand) -> NewJob:
        """Return the job that carries out a command.

        Raises ManagerNotFoundError, ForbiddenError and LLMNotConfiguredError.
        """
        for verb in (Verb.READ, Verb.WRITE, Verb.DELETE):
            access.authorize(command.namespace, verb)
        stored = access.authorize(command.namespace, Verb.JOBS)
        chosen = await self._managers.choose(access, command.manager, command.config)
        config = Config.of(chosen.config, deletes=True).override(apply=command.apply)
        strategy = command.strategy or ("llm" if config.strategy == "llm" else "duplicates")
        if strategy == "llm":
            config.require_models(self._llms)
        plan = ConsolidatePlan(
            config=config,
            manager=chosen.name,
            manager_version=chosen.version,
            namespace=command.namespace,
            strategy=strategy,
            full=command.full,
            limit=command.limit,
        )
        return plan.new_job(stored, concurrency_key=stored, manager=plan.manager)


async def plan_consolidate(
    resources: Resources, access: Access, body: ConsolidateRequest
) -> NewJob:
    """Return the job for a request; raises as `ConsolidatePlanner.plan_job`."""
    return await ConsolidatePlanner.build(resources).plan_job(access, body.to_command())
