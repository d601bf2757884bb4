"""Body of the route that submits consolidations."""

from typing import Annotated

from pydantic import Field

from app.body_limits import CONFIGURATION
from app.consolidation.plan import DEFAULT_LIMIT, ConsolidateCommand, Strategy
from app.managers.schemas import Apply, ManagerChoice
from app.schemas import Flag, Labels, Number

MAX_CONSOLIDATED = 1_000


class ConsolidateRequest(ManagerChoice):
    """Memories to tidy up."""

    body_limit = CONFIGURATION

    namespace: Labels = Field(description="Tidy up at and below this namespace.")
    strategy: Strategy | None = Field(
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

    def to_command(self) -> ConsolidateCommand:
        """Return the command that the request gives."""
        return ConsolidateCommand(
            namespace=self.namespace,
            manager=self.manager,
            config=self.manager_config,
            strategy=self.strategy,
            everything=bool(self.everything),
            limit=self.limit or DEFAULT_LIMIT,
            apply=self.apply,
        )
