"""Bodies and answers of the routes of threads."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from app.body_limits import CONVERSATION
from app.conversations.namespace_template import check_template
from app.jobs.results import SummaryState
from app.jobs.schemas import Job
from app.json_values import check_storable_text
from app.managers.schemas import (
    MAX_MESSAGES,
    ConversationMessage,
    ManagerChoice,
    ManagerName,
    TemplateLabel,
    Variables,
)
from app.namespaces import MAX_DEPTH
from app.schemas import CLEAN, Body, ItemLabels, Real, Schema
from app.store.schemas import MAX_INTEGER

MAX_SECONDS = 86_400
MAX_PAGE = 200


ThreadId = Annotated[
    str,
    Field(min_length=1, max_length=256, json_schema_extra=CLEAN),
    AfterValidator(check_storable_text),
]

Seconds = Annotated[Real, Field(ge=0, le=MAX_SECONDS)]


class AppendMessages(ManagerChoice):
    """Messages to add to a thread, and how memories are to be formed of it."""

    body_limit = CONVERSATION

    messages: list[ConversationMessage] = Field(
        min_length=1,
        max_length=MAX_MESSAGES,
        description="In the order they were said. One whose id the thread knows is left out.",
    )
    manager: ManagerName | None = Field(
        None,
        description="Name of the stored manager that forms memories. Absent, as manager_config: "
        "what was last chosen for this thread; if nothing ever was, the messages are only kept.",
    )
    namespace: ItemLabels | None = Field(
        None, description="Where the thread's memories go, instead of the manager's template."
    )
    variables: Variables | None = Field(
        None, description="What the variables of the manager's namespace stand for."
    )
    after_seconds: Seconds | None = Field(
        None, description="Form memories after so many seconds without a message; at first 30."
    )
    max_wait_seconds: Seconds | None = Field(
        None,
        description="Let no message wait for longer, however many follow; at first 600, or twenty "
        "times after_seconds where that is longer.",
    )


class AppendedMessages(BaseModel):
    """What became of appended messages."""

    thread_id: str = Field(description="The thread they were appended to.")
    appended: int = Field(description="Messages that are new in the thread.")
    already_known: int = Field(description="Messages whose id the thread knew already.")
    differing: list[str] = Field(
        description="Known ids that came with other words this time; the first words were kept."
    )
    waiting: int = Field(description="Messages that no memories were formed of yet.")
    job_id: str | None = Field(description="What will form memories of them; null: nothing will.")
    forms_at: datetime | None = Field(description="When it will, unless more messages come.")


class ConversationThread(BaseModel):
    """A thread, and how far memories were formed of it."""

    thread_id: str = Field(description="The client's own id of the conversation.")
    namespace: list[str] = Field(description="Where its memories go.")
    manager: str | None = Field(description="The stored manager that was last named for it.")
    messages: int = Field(description="How many there are; their positions begin at 0.")
    learned_until: int = Field(description="Position of the next message to be learned from.")
    waiting: int = Field(description="Messages that no memories were formed of yet.")
    waiting_since: datetime | None = Field(description="When the first of those came.")
    job_id: str | None = Field(description="The job that waits to form memories, if there is one.")
    forms_at: datetime | None = Field(description="When it will begin.")
    summary: SummaryState | None = Field(
        description="The running summary, if there is one and the key may read it."
    )
    created_at: datetime = Field(description="When its first messages came.")
    updated_at: datetime = Field(description="When messages last came.")


class ThreadMessage(BaseModel):
    """A message and its place in the thread."""

    position: int = Field(description="Place in the thread, from 0.")
    message: dict[str, Any] = Field(description="As it was sent; with an id if it had none.")
    created_at: datetime = Field(description="When it was appended.")


class ThreadMessages(BaseModel):
    """A page of a thread's messages, in order."""

    messages: list[ThreadMessage] = Field(description="In the order they were said.")
    next_cursor: int | None = Field(description="Send it for the next page; null: there is none.")


class ReadMessages(Schema):
    """Which messages of a thread to read."""

    cursor: int = Field(0, ge=0, le=MAX_INTEGER, description="next_cursor of the page before.")
    limit: int = Field(100, ge=1, le=MAX_PAGE, description="At most this many.")


class FlushedThread(BaseModel):
    """The job that forms memories from what waits in a thread."""

    job: Job | None = Field(
        description="null: nothing waits; memories were formed from everything."
    )


class RunInput(BaseModel):
    """What LangMem's executor hands over."""

    messages: list[ConversationMessage] = Field(
        min_length=1,
        max_length=MAX_MESSAGES,
        description="The conversation so far; what the thread holds already is recognized.",
    )


class Configurable(BaseModel):
    """What LangGraph calls configurable; every further text or integer is a variable."""

    model_config = ConfigDict(extra="allow")

    namespace: Annotated[list[TemplateLabel], Field(min_length=1, max_length=MAX_DEPTH)] | None = (
        Field(
            None,
            description="Where memories are kept, instead of the manager's template; itself a "
            "template, so that `{user_id}` is never taken for a label.",
        )
    )

    @field_validator("namespace")
    @classmethod
    def _is_template(cls, namespace: list[str] | None) -> list[str] | None:
        return namespace and check_template(namespace)

    def variables_in(self, template: Sequence[str]) -> dict[str, str]:
        """Return the values of those variables that a template has."""
        labels = "".join(template)
        return {
            name: str(value)
            for name, value in (self.model_extra or {}).items()
            if f"{{{name}}}" in labels and type(value) in {str, int}  # null is nobody's name
        }


class RunConfig(BaseModel):
    """LangGraph's configuration of a run."""

    configurable: Configurable = Field(
        default_factory=Configurable, description="Namespace and variables."
    )


class CreateRun(Body):
    """A run as the LangGraph SDKs create it; members not listed here are of no consequence."""

    body_limit = CONVERSATION

    assistant_id: ManagerName = Field(description="The name of a stored manager.")
    input: RunInput = Field(description="What to learn from.")
    config: RunConfig | None = Field(None, description="Where memories are kept.")
    metadata: dict[str, Any] | None = Field(None, description="Given back in the answer.")
    multitask_strategy: Literal["reject", "interrupt", "rollback", "enqueue"] | None = Field(
        None, description="Whichever: a run that waits is put off, one that runs is left alone."
    )
    if_not_exists: Literal["create", "reject"] | None = Field(
        None, description="create: make the thread if there is none. Absent: reject."
    )
    after_seconds: Seconds | None = Field(None, description="Begin so much later. Absent: at once.")


class Run(BaseModel):
    """A run as the LangGraph SDKs know it; GET /v1/jobs/{run_id} tells more."""

    run_id: str = Field(description="The id of the job.")
    thread_id: str | None = Field(description="The thread, where the run is one's.")
    assistant_id: str = Field(description="The manager that does it.")
    status: Literal["pending"] = Field(description="A run is answered before it begins.")
    created_at: datetime = Field(description="When it was created.")
    updated_at: datetime = Field(description="The same.")
    metadata: dict[str, Any] = Field(description="As it was sent.")
    multitask_strategy: str | None = Field(description="As it was sent.")
