"""Requests and responses of the thread routes."""

from dataclasses import asdict
from typing import Annotated, Literal, Self

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from app.auth.access import Access
from app.conversations.fields import Id
from app.conversations.messages import MAX_MESSAGES, ConversationMessage
from app.conversations.namespace_template import TemplateLabel, Variables, check_template
from app.db.pages import Page
from app.extraction.plan import ExtractCommand
from app.jobs.record import ActiveJob
from app.jobs.results import SummaryState
from app.jobs.schemas import Job
from app.json_values import JsonObject, check_storable_text
from app.managers.schemas import ManagerChoice, ManagerName
from app.namespaces import MAX_DEPTH
from app.schemas import CLEAN, CONVERSATION, Body, ItemLabels, Real, Schema, Timestamp
from app.store import types
from app.store.schemas import MAX_INTEGER, Item, Key
from app.threads.repository import Message, Thread
from app.threads.runs import RunCommand, RunReceipt
from app.threads.service import AppendCommand, AppendResult

MAX_SECONDS = 86_400
MAX_PAGE = 200


ThreadId = Annotated[
    str,
    Field(min_length=1, max_length=256, json_schema_extra=CLEAN),
    AfterValidator(check_storable_text),
]

Seconds = Annotated[Real, Field(ge=0, le=MAX_SECONDS)]


class AppendMessages(ManagerChoice):
    """Messages to add to a thread, and when and how memories are extracted from it."""

    body_limit = CONVERSATION

    messages: list[ConversationMessage] = Field(
        min_length=1,
        max_length=MAX_MESSAGES,
        description="In order. A message whose id the thread has is left out.",
    )
    manager: ManagerName | None = Field(
        None,
        description="Name of the stored manager that extracts memories. If it and manager_config "
        "are absent: the thread's latest choice; without one, the messages are only stored.",
    )
    namespace: ItemLabels | None = Field(
        None, description="Namespace of the thread's memories, instead of the manager's template."
    )
    variables: Variables | None = Field(
        None, description="Values of the variables in the manager's namespace."
    )
    after_seconds: Seconds | None = Field(
        None,
        description="Extract memories after this many seconds without a message; initially 30.",
    )
    max_wait_seconds: Seconds | None = Field(
        None,
        description="Maximum delay of any message's extraction, however many follow; initially "
        "600, or twenty times after_seconds if that is longer.",
    )

    def command(self, thread_id: str) -> AppendCommand:
        """Return the append to a thread."""
        extraction = None
        if self.manager is not None or self.manager_config is not None:
            extraction = ExtractCommand(
                manager=self.manager,
                config=self.manager_config,
                namespace=self.namespace,
                variables=self.variables or {},
                messages=self.messages,
                thread_id=thread_id,
            )
        return AppendCommand(
            thread_id=thread_id,
            messages=[message.members() for message in self.messages],
            namespace=self.namespace,
            extraction=extraction,
            after_seconds=self.after_seconds,
            max_wait_seconds=self.max_wait_seconds,
        )


class AppendedMessages(BaseModel):
    """Result of appending messages."""

    thread_id: str = Field(description="The thread they were appended to.")
    appended: int = Field(description="Messages that are new in the thread.")
    already_known: int = Field(description="Messages that the thread already had.")
    conflicting: list[str] = Field(
        description="Ids that the thread has with other content; the stored content was kept."
    )
    pending: int = Field(description="Messages that memories have not been extracted from.")
    job_id: str | None = Field(
        description="The job that will extract memories from them; null: none will."
    )
    extracts_at: Timestamp | None = Field(
        description="When the job starts, unless more messages arrive."
    )

    @classmethod
    def of(cls, result: AppendResult) -> Self:
        """Present the result of an append."""
        return cls(**asdict(result))


class ConversationThread(BaseModel):
    """A thread, and how far memories have been extracted from it."""

    thread_id: str = Field(description="The client's own id of the conversation.")
    namespace: list[str] = Field(description="Namespace of its memories.")
    manager: str | None = Field(description="The stored manager that was last chosen for it.")
    messages: int = Field(description="Number of messages; their positions begin at 0.")
    extracted_until: int = Field(description="Position of the next message to extract from.")
    pending: int = Field(description="Messages that memories have not been extracted from.")
    pending_since: Timestamp | None = Field(description="When the oldest of those arrived.")
    job_id: str | None = Field(description="The queued job that extracts memories, if any.")
    extracts_at: Timestamp | None = Field(description="When the job starts.")
    summary: SummaryState | None = Field(
        description="The running summary, if there is one and the key may read it."
    )
    created_at: Timestamp = Field(description="When its first messages arrived.")
    updated_at: Timestamp = Field(description="When messages last arrived.")

    @classmethod
    def of(cls, thread: Thread, job: ActiveJob | None, *, namespace: list[str]) -> Self:
        """Present a thread and its queued job; `namespace` is relative to the key's root."""
        return cls(
            thread_id=thread.id,
            namespace=namespace,
            manager=thread.schedule and thread.schedule.plan.manager,
            messages=thread.next_position,
            extracted_until=thread.extracted_until,
            pending=thread.pending,
            pending_since=thread.pending_since,
            job_id=job and job.id,
            extracts_at=job and job.run_at,
            summary=thread.summary and SummaryState.model_validate_json(thread.summary),
            created_at=thread.created_at,
            updated_at=thread.updated_at,
        )


class ThreadMessage(BaseModel):
    """A message and its position in the thread."""

    position: int = Field(description="Position in the thread, from 0.")
    message: JsonObject = Field(description="As sent; with an id if it had none.")
    created_at: Timestamp = Field(description="When it was appended.")


class ThreadMessages(BaseModel):
    """A page of a thread's messages, in order."""

    messages: list[ThreadMessage] = Field(description="In order.")
    next_cursor: int | None = Field(description="Cursor of the next page; null: this is the last.")

    @staticmethod
    def members(page: Page[Message]) -> JsonObject:
        """Return a page's members; stored text is sent as it is: 4 MiB in 2 ms, as models in 64."""
        return {
            "messages": [
                {
                    "position": message.position,
                    "message": orjson.Fragment(message.text),
                    "created_at": message.created_at,
                }
                for message in page.items
            ],
            "next_cursor": page.next_cursor(lambda message: message.position + 1),
        }


class ReadMessages(Schema):
    """Selection of a thread's messages."""

    cursor: int = Field(0, ge=0, le=MAX_INTEGER, description="next_cursor of the previous page.")
    limit: int = Field(100, ge=1, le=MAX_PAGE, description="At most this many.")
    memory_key: Key | None = Field(
        None, description="Only the messages on which the memory at this key rests."
    )


class ReadMemories(Schema):
    """Selection of the memories that rest on a message."""

    message_id: Id = Field(description="The id of a message of the thread.")
    cursor: int = Field(0, ge=0, le=MAX_INTEGER, description="next_cursor of the previous page.")
    limit: int = Field(100, ge=1, le=MAX_PAGE, description="At most this many.")


class MessageMemories(BaseModel):
    """A page of the memories that rest on a message, the oldest first."""

    memories: list[Item] = Field(description="The oldest first.")
    next_cursor: int | None = Field(description="Cursor of the next page; null: this is the last.")

    @staticmethod
    def members(page: Page[types.Item], access: Access) -> JsonObject:
        """Return a page's members."""
        return {
            "memories": [Item.members_of(item, access) for item in page.items],
            "next_cursor": page.next_cursor(lambda item: item.id),
        }


class FlushedThread(BaseModel):
    """The job that extracts memories from a thread's pending messages."""

    job: Job | None = Field(description="null: no message is pending.")


class RunInput(BaseModel):
    """Input of a run, as LangMem's executor sends it."""

    messages: list[ConversationMessage] = Field(
        min_length=1,
        max_length=MAX_MESSAGES,
        description="The conversation so far; only messages new to the thread are appended.",
    )


class Configurable(BaseModel):
    """LangGraph's `configurable`; every additional string or integer is a variable."""

    model_config = ConfigDict(extra="allow")

    namespace: Annotated[list[TemplateLabel], Field(min_length=1, max_length=MAX_DEPTH)] | None = (
        Field(
            None,
            description="Namespace of memories, instead of the manager's; it is a template "
            "too, so `{user_id}` is a variable and not a label.",
        )
    )

    @field_validator("namespace")
    @classmethod
    def _is_template(cls, namespace: list[str] | None) -> list[str] | None:
        return namespace and check_template(namespace)


class RunConfig(BaseModel):
    """LangGraph's configuration of a run."""

    configurable: Configurable = Field(
        default_factory=Configurable, description="Namespace and variables."
    )


class CreateRun(Body):
    """A run as the LangGraph SDKs create it; other members are ignored."""

    body_limit = CONVERSATION

    assistant_id: ManagerName = Field(description="The name of a stored manager.")
    input: RunInput = Field(description="The messages to extract from.")
    config: RunConfig | None = Field(None, description="Namespace and variables.")
    metadata: JsonObject | None = Field(None, description="Returned in the response.")
    multitask_strategy: Literal["reject", "interrupt", "rollback", "enqueue"] | None = Field(
        None, description="Ignored: a queued run is postponed, a running one continues."
    )
    if_not_exists: Literal["create", "reject"] | None = Field(
        None, description="create: create the thread if there is none. Absent: reject."
    )
    after_seconds: Seconds | None = Field(
        None, description="Seconds before the run starts. Absent: 0."
    )

    def command(self, thread_id: str | None = None) -> RunCommand:
        """Return the run, in a thread or without one."""
        configurable = self.config.configurable if self.config else Configurable()
        variables = configurable.model_extra or {}
        return RunCommand(
            manager=self.assistant_id,
            messages=self.input.messages,
            template=configurable.namespace,
            # Other values, such as null, are no labels.
            variables={n: str(v) for n, v in variables.items() if type(v) in {str, int}},
            thread_id=thread_id,
            creates_thread=self.if_not_exists == "create",
            after_seconds=self.after_seconds or 0.0,
        )


class Run(BaseModel):
    """A run in the LangGraph SDKs' format; GET /v1/jobs/{run_id} has more."""

    run_id: str = Field(description="The id of the job.")
    thread_id: str | None = Field(description="The thread, if the run has one.")
    assistant_id: str = Field(description="The manager.")
    status: Literal["pending"] = Field(description="A run is returned before it starts.")
    created_at: Timestamp = Field(description="When it was created.")
    updated_at: Timestamp = Field(description="The same time.")
    metadata: JsonObject = Field(description="As sent.")

    keyword_arguments: JsonObject = Field(
        default_factory=dict, serialization_alias="kwargs", description="Empty."
    )
    multitask_strategy: str | None = Field(description="As sent.")

    @classmethod
    def of(cls, receipt: RunReceipt, body: CreateRun) -> Self:
        """Present a run that a request created."""
        return cls(
            run_id=receipt.job_id,
            thread_id=receipt.thread_id,
            assistant_id=body.assistant_id,
            status="pending",
            created_at=receipt.created_at,
            updated_at=receipt.created_at,
            metadata=body.metadata or {},
            multitask_strategy=body.multitask_strategy,
        )
