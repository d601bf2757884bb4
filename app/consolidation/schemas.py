"""Request of the route that submits consolidations."""

from typing import Annotated

from pydantic import Field

from app.consolidation.plan import DEFAULT_LIMIT, ConsolidateCommand, Strategy
from app.managers.schemas import Apply, ManagerChoice
from app.schemas import CONFIGURATION, Flag, Labels, Number

MAX_CONSOLIDATED = 1_000


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
