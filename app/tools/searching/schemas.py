"""Body of the route that searches with a model's queries, and what its jobs keep."""

from typing import Annotated, Any

from pydantic import Field

from app.body_limits import CONVERSATION
from app.jobs.kind import JobPlan
from app.managers.schemas import Instructions, ModelName
from app.schemas import Number
from app.tools.schemas import Messages, Placed

DEFAULT_LIMIT = 10
MAX_LIMIT = 100


class SearchMemories(Placed):
    """A conversation, and where to look for what is known about it."""

    body_limit = CONVERSATION

    messages: Messages = Field(description="In the order they were said.")
    query_model: ModelName | None = Field(
        None, description="Writes the searches; absent: the manager's query_model, or MEMORYD_LLM."
    )
    instructions: Instructions | None = Field(
        None, description="What to look for; added to memoryd's own."
    )
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT), Number] | None = Field(
        None, description=f"At most this many items of each search; absent: {DEFAULT_LIMIT}."
    )
    filter: Annotated[dict[str, Any], Field(title="Filter")] | None = Field(
        None,
        description="Conditions on the value; see docs/reference/filters.md.",
        examples=[{"kind": "memory"}],
    )


class SearchPlan(JobPlan):
    """What a job of the kind `search` does; `queries` are searched for beside the model's."""

    job_kind = "search"

    namespace: list[str]
    messages: list[dict[str, Any]]
    query_model: str | None
    queries: list[str] = Field(default_factory=list)
    instructions: str | None = None
    limit: int = DEFAULT_LIMIT
    filter: dict[str, Any] | None = None
