"""Body of the route that submits extractions."""

from typing import Annotated
from uuid import uuid4

from pydantic import AfterValidator, Field

from app.conversations.fields import Id
from app.conversations.messages import MAX_MESSAGES, ConversationMessage
from app.conversations.namespace_template import Variables
from app.extraction.plan import ExtractCommand, RequestMemory
from app.json_values import check_storable_text
from app.managers.schemas import Apply, ManagerChoice, MemoryValue, Steps
from app.schemas import CONVERSATION, ItemLabels, Number, Schema
from app.store.schemas import MAX_INTEGER

MAX_EXISTING = 1_000


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
